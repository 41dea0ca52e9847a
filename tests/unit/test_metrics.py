"""RI, mRI and their intervals against the definitions written out, and against a slow bootstrap."""

import numpy as np
import pandas as pd
import pytest

from rib import metrics

DATASETS = ["a", "b", "c"]
TARGETS = ["a", "b"]


@pytest.fixture
def rows():
    """Rows of one model: pretrained, and methods x targets x seeds; objects overlap between datasets."""
    rng = np.random.default_rng(0)
    parts = []
    for method, target, seed in [
        ("pretrained", "none", 0),
        *((method, target, seed) for method in ("ft", "lwf") for target in TARGETS for seed in (0, 1)),
    ]:
        for dataset, n in zip(DATASETS, (9, 7, 12), strict=True):
            objects = [f"o{i}" for i in range(n)]
            labels = np.arange(n)
            wrong = rng.random(n) < 0.4
            parts.append(
                pd.DataFrame(
                    {
                        "model": "m",
                        "method": method,
                        "target": target,
                        "size": "all",
                        "seed": seed,
                        "alpha": np.nan,
                        "dataset": dataset,
                        "object_id": objects,
                        "label": labels,
                        "prediction": labels + wrong,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def results(rows):
    counts = metrics.count([rows])
    weights = metrics.object_weights(counts.objects, 300, seed=1)
    ood = metrics.ood_accuracies(counts, weights)
    return counts, weights, metrics.ri_table(ood, 0.95), *metrics.mri_tables(ood, 0.95)


def accuracy(rows, method, target, seed, dataset):
    part = rows.query("method == @method and target == @target and seed == @seed and dataset == @dataset")
    return 100 * (part["label"] == part["prediction"]).mean()


def test_accuracies_are_counts_over_n(rows, results):
    table = metrics.accuracy_table(results[0])
    assert list(table) == ["model", "method", "target", "size", "seed", "dataset", "n", "correct", "accuracy"]
    assert len(table) == 9 * 3
    for line in table.itertuples():
        assert line.accuracy == pytest.approx(accuracy(rows, line.method, line.target, line.seed, line.dataset))
        assert line.accuracy == pytest.approx(100 * line.correct / line.n)


def test_ri_is_the_mean_change_off_the_target(rows, results):
    table = results[2]
    assert len(table) == 8
    for line in table.itertuples():
        changes = [
            accuracy(rows, line.method, line.target, line.seed, j) - accuracy(rows, "pretrained", "none", 0, j)
            for j in DATASETS
            if j != line.target
        ]
        assert line.ri == pytest.approx(np.mean(changes))
        assert line.ci_low < line.ri < line.ci_high


def test_mri_is_after_less_before_and_the_mean_ri(rows, results):
    ri, mri, ood = results[2:]
    for line in mri.itertuples():
        assert line.mri == pytest.approx(line.ood_after - line.ood_before, abs=1e-9)
        assert line.mri == pytest.approx(ri[ri["method"] == line.method]["ri"].mean())
        before = [accuracy(rows, "pretrained", "none", 0, j) for i in TARGETS for j in DATASETS if j != i]
        assert line.ood_before == pytest.approx(np.mean(before))
        shown = ood[ood["method"] == line.method].set_index("when")["accuracy"]
        assert (shown["before"], shown["after"]) == (line.ood_before, line.ood_after)


def test_intervals_equal_those_of_a_bootstrap_by_hand(rows, results):
    """Rows repeated as often as their object was drawn, accuracies recomputed from scratch."""
    _, weights, ri = results[:3]
    objects = sorted(set(rows["object_id"]))
    line = ri.query("method == 'lwf' and target == 'b' and seed == 1").iloc[0]
    replicates = []
    for draw in weights[1:]:
        times = rows["object_id"].map(dict(zip(objects, draw.astype(int), strict=True)))
        resampled = rows.loc[rows.index.repeat(times)]
        replicates.append(
            np.mean(
                [
                    accuracy(resampled, "lwf", "b", 1, j) - accuracy(resampled, "pretrained", "none", 0, j)
                    for j in ("a", "c")
                ]
            )
        )
    assert (line.ci_low, line.ci_high) == pytest.approx(tuple(np.percentile(replicates, [2.5, 97.5])))


def test_the_pretrained_model_compared_with_itself_has_ri_zero_without_spread(rows):
    pretrained = rows[rows["method"] == "pretrained"]
    same = pd.concat([pretrained, pretrained.assign(method="ft", target="a")])
    counts = metrics.count([same])
    ood = metrics.ood_accuracies(counts, metrics.object_weights(counts.objects, 100, 0))
    assert metrics.ri_table(ood, 0.95)[["ri", "ci_low", "ci_high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_each_replicate_draws_as_many_objects_as_there_are():
    weights = metrics.object_weights(50, 200, seed=3)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 50).all()
    assert (weights == metrics.object_weights(50, 200, seed=3)).all()
    # Uniform over objects: each is drawn once per replicate on average.
    assert weights[1:].mean() == 1 and abs(weights[1:].mean(axis=0) - 1).max() < 5 / np.sqrt(200)


def test_runs_on_different_images_are_refused(rows):
    with pytest.raises(ValueError, match="not scored on the same images"):
        metrics.count([rows.drop(index=rows.index[-1])])


def test_rows_may_come_in_parts(rows):
    parts = [part.sample(frac=1, random_state=0) for _, part in rows.groupby(["method", "target", "seed", "dataset"])]
    whole, split = metrics.count([rows]), metrics.count(parts)
    assert whole.states == split.states
    for dataset in DATASETS:
        assert (whole.correct[dataset] == split.correct[dataset]).all()


def test_evaluations_on_different_devices_are_not_mixed(tmp_path, rows):
    rows.to_parquet(tmp_path / "rows.parquet")
    manifests = []
    for device in ("cpu", "cuda"):
        manifests.append(tmp_path / f"{device}.json")
        manifests[-1].write_text(f'{{"device": "{device}"}}')
    with pytest.raises(metrics.UserError, match="mixes evaluations on cpu and cuda"):
        metrics.write_tables(
            rows=[tmp_path / "rows.parquet"],
            manifests=manifests,
            among=DATASETS,
            groups=None,
            conditions="protocol paper",
            replicates=100,
            confidence=0.95,
            seed=0,
            outputs={},
        )


def test_a_dataset_in_distribution_has_an_accuracy_and_no_part_in_ri(rows):
    counts = metrics.count([rows])
    weights = metrics.object_weights(counts.objects, 10, seed=1)
    found = metrics.ri_table(metrics.ood_accuracies(counts, weights, ["a", "b"]), 0.95)
    line = next(line for line in found.itertuples() if (line.method, line.target, line.seed) == ("ft", "a", 0))
    assert line.ri == pytest.approx(accuracy(rows, "ft", "a", 0, "b") - accuracy(rows, "pretrained", "none", 0, "b"))
    assert set(metrics.accuracy_table(counts)["dataset"]) == {"a", "b", "c"} and line.n == 7


def test_leak_free_leaves_out_what_the_target_was_made_from_before_and_after(rows):
    """a, b and c have 9, 7 and 12 objects, the first ones the same; a and c were made from the same sources."""
    counts = metrics.count([rows])
    weights = metrics.object_weights(counts.objects, 10, seed=1)
    found = metrics.ri_table(metrics.ood_accuracies(counts, weights, groups={"a": "g", "c": "g"}), 0.95)
    kept = rows[(rows["dataset"] != "c") | ~rows["object_id"].isin([f"o{i}" for i in range(9)])]

    def change(part, method, target, dataset):
        return accuracy(part, method, target, 0, dataset) - accuracy(part, "pretrained", "none", 0, dataset)

    of = {(line.method, line.target, line.seed): line for line in found.itertuples()}
    expected = np.mean([change(kept, "ft", "a", dataset) for dataset in "bc"])
    assert of["ft", "a", 0].ri == pytest.approx(expected) and of["ft", "a", 0].n == 7 + 3
    expected = np.mean([change(rows, "ft", "b", dataset) for dataset in "ac"])
    assert of["ft", "b", 0].ri == pytest.approx(expected) and of["ft", "b", 0].n == 9 + 12


def test_leak_free_drops_a_dataset_of_which_nothing_is_left(rows):
    small = rows[(rows["dataset"] != "c") | rows["object_id"].isin([f"o{i}" for i in range(5)])]
    counts = metrics.count([small])
    weights = metrics.object_weights(counts.objects, 10, seed=1)
    found = metrics.ood_accuracies(counts, weights, groups={"a": "g", "c": "g"})
    line = next(pair for state, pair in found.items() if state[:3] == ("m", "ft", "a"))
    assert line.images == 7
    with pytest.raises(metrics.UserError, match="every dataset was made from the images that a was made from"):
        metrics.ood_accuracies(counts, weights, among=["a", "c"], groups={"a": "g", "c": "g"})

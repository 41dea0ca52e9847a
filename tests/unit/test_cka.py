"""CKA against a reference that follows the definitions word by word.

Its invariances and the coverage of its intervals are tested, too.
"""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from rib.analyses.epochs.tables import epoch_table
from rib.analyses.representations.tables import cka_table
from rib.analysis.cka import (
    Kernel,
    cka,
    hsic,
    jackknife_interval,
    mean_over,
    plain_cka,
)
from rib.base.errors import UserError
from tiny.tables import write

RNG = np.random.default_rng(0)
PAIR = ("m/none/pretrained/all/0", "m/a/ft/all/0")
OBJECTS = {
    "a": [0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    "b": [2, 3, 9, 10, 11, 12, 13, 14, 15],
    "val": list(range(20, 32)),
}


def each(n):
    """Every image an object of its own."""
    return np.arange(n)


def naive_hsic(x, y):
    """Song et al. 2012, equation 5, with sums over distinct indices in place of matrix products."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    trace = sum(k[i, j] * m[i, j] for i, j in pairs)
    total = sum(k[pair] for pair in pairs) * sum(m[pair] for pair in pairs)
    cross = sum(k[i, j] * m[j, h] for i, j in pairs for h in range(n) if h != j)
    return (trace + total / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


def naive_cka(x, y):
    return naive_hsic(x, y) / np.sqrt(naive_hsic(x, x) * naive_hsic(y, y))


def of(x, y, groups=None):
    groups = each(len(x)) if groups is None else groups
    return cka(Kernel.of(x, groups, "a"), Kernel.of(y, groups, "a"))


@pytest.fixture
def features():
    """Two related sets of features of 30 images."""
    x = RNG.normal(size=(30, 7))
    return x, x @ RNG.normal(size=(7, 5)) + RNG.normal(size=(30, 5))


def test_hsic_and_cka_equal_a_naive_reference(features):
    x, y = (part[:12] for part in features)
    assert hsic(*(Kernel.of(part, each(12), "a") for part in (x, y)))[0] == pytest.approx(
        naive_hsic(x, y), rel=1e-10
    )
    assert of(x, y)[0] == pytest.approx(naive_cka(x, y), rel=1e-10)


def test_each_value_without_a_group_equals_computing_it_again_without_its_images(features):
    x, y = (part[:14] for part in features)
    groups = np.array([0, 1, 2, 2, 3, 4, 5, 5, 5, 1, 6, 7, 8, 3])
    values = of(x, y, groups)
    assert len(values) == 10
    for group, value in enumerate(values[1:]):
        kept = groups != group
        assert value == pytest.approx(naive_cka(x[kept], y[kept]), rel=1e-9)


def test_unbiased_hsic_of_independent_features_is_0_on_average():
    draws = [
        hsic(*(Kernel.of(RNG.normal(size=(8, 3)), each(8), "a") for _ in range(2)))[0]
        for _ in range(4000)
    ]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))


@pytest.mark.parametrize(
    "estimate", [lambda x, y: of(x, y)[0], plain_cka], ids=["debiased", "plain"]
)
def test_invariances(estimate, features):
    x, y = features
    rotation = np.linalg.qr(RNG.normal(size=(7, 7)))[0]
    value = estimate(x, y)
    assert 0.2 < value < 0.99
    assert estimate(x @ rotation, y) == pytest.approx(value, rel=1e-9)
    assert estimate(-3.7 * x, 100 * y) == pytest.approx(value, rel=1e-9)
    assert estimate(x + 5, y - 2) == pytest.approx(value, rel=1e-9)
    assert estimate(y, x) == pytest.approx(value, rel=1e-9)
    order = RNG.permutation(len(x))
    assert estimate(x[order], y[order]) == pytest.approx(value, rel=1e-9)
    assert estimate(x, x @ rotation) == pytest.approx(1, rel=1e-9)
    assert estimate(x * [100, 1, 1, 1, 1, 1, 1], y) != pytest.approx(value, rel=1e-2), (
        "not to any linear map"
    )


def test_with_few_images_independent_features_are_near_0_and_the_plain_estimate_is_not():
    """With fewer images than dimensions, that is."""
    pairs = [[RNG.normal(size=(50, 500)) for _ in range(2)] for _ in range(20)]
    assert abs(np.mean([of(*pair)[0] for pair in pairs])) < 0.02
    assert np.mean([plain_cka(*pair) for pair in pairs]) > 0.8


def test_plain_cka_is_the_papers_formula(features):
    x, y = (part - part.mean(axis=0) for part in features)
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (
        norm(x.T @ x) * norm(y.T @ y)
    )  # Kornblith et al. 2019, section 3
    assert plain_cka(*features) == pytest.approx(expected, rel=1e-10)


def test_equal_features_have_a_cka_of_exactly_1_and_constant_ones_none(features):
    values = of(features[0], features[0].copy())
    assert jackknife_interval(values, 0.95) == pytest.approx((1, 1), abs=1e-9) and values[
        0
    ] == pytest.approx(1)
    assert np.isnan(of(features[0], np.ones((30, 4)))).all()


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_jackknifes_error_is_its_formula(n):
    """Efron & Tibshirani 1993, equation 11.5.

    The root of (n - 1) / n times the sum of squares about the mean.
    """
    values = np.tanh(np.random.default_rng(n).normal(0.8, 0.2, 1 + n))
    left = np.arctanh(values[1:])
    error = np.sqrt((n - 1) / n * sum((left - left.mean()) ** 2))
    for confidence, quantile in ((0.95, 1.959964), (0.9, 1.644854), (0.5, 0.674490)):
        low, high = jackknife_interval(values, confidence)
        expected = np.arctanh(values[0]) + np.array([-1, 1]) * quantile * error
        assert (np.arctanh(low), np.arctanh(high)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.thorough
def test_intervals_cover_the_truth_as_often_as_they_say():
    """Gaussian features with a shared latent z: x = z, and y = z + noise of the same size.

    CKA of many images is the truth.
    """
    dimensions, spread = 5, np.arange(1, 6) / 2

    def draw(n):
        z = RNG.normal(size=(n, dimensions)) * spread
        return z, z + RNG.normal(size=(n, dimensions)) * spread

    truth = plain_cka(*draw(4000))
    hits = []
    for _ in range(300):
        values = of(*draw(60))
        low, high = jackknife_interval(values, 0.9)
        assert low < values[0] < high < 1
        hits.append(low <= truth <= high)
    assert 0.84 < np.mean(hits) < 0.96


def test_an_object_is_left_out_of_all_datasets_that_have_it():
    parts = [(np.array([0.5, 0.4, 0.6]), ["a", "b"]), (np.array([0.9, 0.8, 1.0]), ["b", "c"])]
    assert mean_over(parts) == pytest.approx(
        [0.7, (0.4 + 0.9) / 2, (0.6 + 0.8) / 2, (0.5 + 1.0) / 2]
    )


def stored(folder, run, dataset, layers):
    """Features of several layers of a run; of some objects there are two images."""
    path = folder / run / f"{dataset}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({layer: part.astype(np.float32) for layer, part in layers.items()}, path)
    (n,) = {len(part) for part in layers.values()}
    index = {"image_id": [f"i{number}" for number in range(n)], "object_id": OBJECTS[dataset][:n]}
    pd.DataFrame({**index, "label": 0}).to_parquet(path.with_suffix(".index.parquet"))
    return path


def test_too_few_images_no_run_and_features_of_no_head_are_refused(tmp_path):
    settings = {
        "ood_datasets": ["a"],
        "conditions": "",
        "confidence": 0.95,
        "table": tmp_path / "t.csv",
    }
    x = RNG.normal(size=(10, 3))
    before, after = (stored(tmp_path, run, "a", {"pre_logits": x}) for run in PAIR)
    with pytest.raises(UserError, match="no fine-tuned run"):
        write(cka_table, features=[before], **settings)
    save_file({"snapshot1": x.astype(np.float32)}, after)
    save_file({"stage4": x.astype(np.float32)}, before)
    with pytest.raises(UserError, match="'pre_logits'"):
        write(epoch_table, before=[before], after=[after], snapshots=1, **settings)
    few = [stored(tmp_path, run, "a", {"pre_logits": x[:4]}) for run in PAIR]
    with pytest.raises(UserError, match="4 images"):
        write(cka_table, features=few, **settings)


# The whole table, against the naive reference


def naive_without_each(x, y, objects):
    """CKA on all images, then by object name without its images."""
    objects = np.array(objects)
    kept = {name: objects != name for name in np.unique(objects)}
    return naive_cka(x, y), {name: naive_cka(x[rows], y[rows]) for name, rows in kept.items()}


def naive_interval(whole, left, quantile=1.644854):
    z, others = np.arctanh(whole), np.arctanh(list(left))
    error = np.sqrt((len(others) - 1) / len(others) * ((others - others.mean()) ** 2).sum())
    return np.tanh(z - quantile * error), np.tanh(z + quantile * error)


def centred(x):
    x = x.astype(np.float32).astype(np.float64)
    return x - x.mean(axis=0)


def made_runs(folder, layers, root="features"):
    """Paths of two models' features: pretrained, two runs of the first and one of the second."""
    rng = np.random.default_rng(5)
    runs = {"m": ["a/ft/10/3", "b/lwf/all/0"], "n": ["val/ft/all/1"]}
    features, paths = {}, []
    for model, tuned in runs.items():
        start = {
            name: {layer: rng.normal(size=(len(of), 3)) for layer in layers}
            for name, of in OBJECTS.items()
        }
        features[model, "none/pretrained/all/0"] = start
        for run in tuned:
            features[model, run] = {
                name: {
                    layer: part + 0.7 * rng.normal(size=part.shape) for layer, part in parts.items()
                }
                for name, parts in start.items()
            }
    for (model, run), datasets in features.items():
        paths += [
            stored(folder / root, f"{model}/{run}", name, parts) for name, parts in datasets.items()
        ]
    return features, paths


def check_lines(table, features, keys):
    """Every line against the reference.

    `keys` gives, for a line, of which run's and pretrained features it is.
    """
    for line in table.itertuples():
        tuned = features[line.model, f"{line.target}/{line.method}/{line.size}/{line.seed}"]
        start = features[line.model, "none/pretrained/all/0"]
        own, first = keys(line)
        names = (
            [line.dataset]
            if line.dataset != "others"
            else [n for n in ("a", "b") if n != line.target]
        )
        pairs = {name: (centred(start[name][first]), centred(tuned[name][own])) for name in names}
        found = {name: naive_without_each(*pair, OBJECTS[name]) for name, pair in pairs.items()}
        objects = sorted(set().union(*(left for _, left in found.values())))
        left = [
            np.mean([left.get(name, whole) for whole, left in found.values()]) for name in objects
        ]
        whole = np.mean([whole for whole, _ in found.values()])
        assert line.cka == pytest.approx(whole, abs=2e-6)
        assert (line.ci_low, line.ci_high) == pytest.approx(naive_interval(whole, left), abs=2e-6)
        assert line.biased == pytest.approx(
            np.mean([plain_cka(*pair) for pair in pairs.values()]), abs=2e-6
        )
        assert line.n == sum(len(OBJECTS[name]) for name in names)


def test_every_line_of_the_table_is_that_of_the_naive_reference(tmp_path):
    features, paths = made_runs(tmp_path, ("pre_logits", "stage2", "stage1"))
    settings = {"ood_datasets": ["a", "b"], "conditions": "protocol paper", "confidence": 0.9}
    write(cka_table, features=iter(paths), **settings, table=tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", dtype={"size": str})
    assert list(table) == [
        *("model", "method", "target", "size", "seed", "dataset", "layer", "depth"),
        *("n", "cka", "ci_low", "ci_high", "biased", "conditions"),
    ]
    lines = [
        (model, method, target, size, seed, dataset, layer, depth)
        for model, method, target, size, seed in (
            *(("m", "ft", "a", "10", 3), ("m", "lwf", "b", "all", 0), ("n", "ft", "val", "all", 1)),
        )
        for layer, depth in (("stage1", 1), ("stage2", 2), ("pre_logits", 5))
        for dataset in ("a", "b", "val", "others")
    ]
    assert list(table.iloc[:, :8].itertuples(index=False, name=None)) == lines
    check_lines(table, features, lambda line: (line.layer, line.layer))
    assert set(table["conditions"]) == {"protocol paper"}


def test_every_snapshot_is_compared_with_the_pretrained_models_last_features(tmp_path):
    features, paths = made_runs(tmp_path, ("snapshot1", "snapshot2", "pre_logits"))
    before = [path for path in paths if "/pretrained/" in str(path)]
    after = [path for path in paths if path not in before]
    settings = {
        "ood_datasets": ["a", "b"],
        "conditions": "c",
        "confidence": 0.9,
        "table": tmp_path / "t.csv",
    }
    write(epoch_table, before=iter(before), after=iter(after), snapshots=2, **settings)
    table = pd.read_csv(tmp_path / "t.csv", dtype={"size": str})
    assert list(table)[5:7] == ["dataset", "trained"] and len(table) == 3 * 2 * 4
    assert table["trained"].tolist() == ([50] * 4 + [100] * 4) * 3, "percent of all steps"
    check_lines(table, features, lambda line: (f"snapshot{line.trained / 50:.0f}", "pre_logits"))


def test_a_run_need_not_have_every_dataset_and_without_others_there_is_no_mean(tmp_path):
    _, paths = made_runs(tmp_path, ("stage1",))
    own = [
        path
        for path in paths
        if "/m/" in str(path) and (path.stem == "a" or "pretrained" in str(path))
    ]
    settings = {
        "ood_datasets": ["a"],
        "conditions": "c",
        "confidence": 0.9,
        "table": tmp_path / "t.csv",
    }
    write(cka_table, features=own, **settings)
    table = pd.read_csv(tmp_path / "t.csv")
    assert table[["method", "dataset"]].to_numpy().tolist() == [
        ["ft", "a"],
        ["lwf", "a"],
        ["lwf", "others"],
    ]


def test_images_of_another_order_or_object_are_other_images(tmp_path):
    x = RNG.normal(size=(10, 3))
    settings = {
        "ood_datasets": ["a"],
        "conditions": "",
        "confidence": 0.95,
        "table": tmp_path / "t.csv",
    }
    before, after = (stored(tmp_path, run, "a", {"pre_logits": x}) for run in PAIR)
    index = pd.read_parquet(after.with_suffix(".index.parquet"))
    for column in ("image_id", "object_id"):
        changed = index.assign(**{column: index[column].to_numpy()[::-1]})
        changed.to_parquet(after.with_suffix(".index.parquet"))
        with pytest.raises(UserError, match=r"m/a/ft/all/0/a\.safetensors"):
            write(cka_table, features=[before, after], **settings)


def test_four_images_must_be_left_without_any_object():
    x = RNG.normal(size=(6, 3))
    Kernel.of(x, np.array([0, 0, 1, 2, 3, 4]), "a")
    for groups in (np.array([0, 0, 0, 1, 2, 3]), np.arange(6)[:4]):
        with pytest.raises(UserError, match="^a: .* 4 images"):
            Kernel.of(x[: len(groups)], groups, "a")
    assert np.isfinite(of(*RNG.normal(size=(2, 5, 3)))).all()


def test_features_far_from_the_origin_lose_nothing():
    x, y = (part.astype(np.float32) for part in RNG.normal(size=(2, 12, 4)))
    assert of(x + 1000, y)[0] == pytest.approx(naive_cka(centred(x + 1000), centred(y)), rel=1e-9)
    unrelated = plain_cka(np.ones((5, 2)), RNG.normal(size=(5, 2)))
    assert np.isnan(unrelated)


def test_the_hsic_of_the_first_features_can_be_given(features):
    one, other = (Kernel.of(part, each(30), "a") for part in features)
    assert (cka(one, other, hsic(one, one)) == cka(one, other)).all()
    assert cka(one, other, 4 * hsic(one, one)) == pytest.approx(cka(one, other) / 2)


def test_intervals_end_below_1_and_contain_what_they_are_of():
    low, high = jackknife_interval(np.array([1.0, 1.0, 1.0]), 0.9)
    assert 1 - 1e-9 < low <= high < 1 + 1e-9
    low, high = jackknife_interval(np.array([-0.9, -0.95, -0.8, -0.9]), 0.9)
    assert -1 < low < -0.9 < high < 0


def test_layers_are_numbered_from_the_input_and_lines_follow_them(tmp_path):
    names = ["pre_logits", "stage4", "stage1", "stage3", "stage2"]
    layers = {name: RNG.normal(size=(10, 2)) for name in names}
    paths = [stored(tmp_path, run, "a", layers) for run in PAIR]
    write(
        cka_table,
        features=paths,
        ood_datasets=["a"],
        conditions="",
        confidence=0.9,
        table=tmp_path / "t.csv",
    )
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["layer"].tolist() == ["stage1", "stage2", "stage3", "stage4", "pre_logits"]
    assert table["depth"].tolist() == [1, 2, 3, 4, 5] and table["cka"].tolist() == [1.0] * 5

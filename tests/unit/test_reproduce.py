"""What `make reproduce` says of a finished default run beside the kept one."""

import pandas as pd
import pytest
import yaml

import reproduce

MODELS = ("small", "large")
TARGETS = ("red", "blue")


def ri_table(changes):
    """RI of two models on two targets at two seeds, 1 point each, changed by model and target."""
    rows = []
    for model in MODELS:
        for target in TARGETS:
            for seed in (0, 1):
                ri = 1 + changes.get((model, target), 0)
                rows.append((model, target, "ft", seed, ri))
    return pd.DataFrame(rows, columns=["model", "target", "method", "seed", "ri"])


def predictions(differing=()):
    """Predictions of two models on ten images of one dataset; class 1 where they differ."""
    rows = []
    for model in MODELS:
        for row in range(10):
            rows.append((model, "grey", row, int((model, row) in differing)))
    return pd.DataFrame(rows, columns=["model", "dataset", "row", "prediction"])


@pytest.fixture
def finished(tmp_path):
    """Makes a project folder with a finished run, by name."""

    def make(name, changes=None, differing=()):
        project = tmp_path / name
        table = project / reproduce.RI
        table.parent.mkdir(parents=True)
        ri_table(changes or {}).to_csv(table, index=False)
        for model, rows in predictions(differing).groupby("model"):
            path = project / reproduce.ROWS.format(model=model)
            path.parent.mkdir(parents=True)
            rows.astype({"dataset": "category"}).to_parquet(path, index=False)
        return project

    return make


@pytest.fixture
def kept(tmp_path, finished):
    """A folder with a kept run whose mRI may differ by 2 * 0.5 points, and one prediction."""
    folder = tmp_path / "kept"
    folder.mkdir()
    measured = {"differing_predictions": 1, "mri": {model: {"ft": 0.5} for model in MODELS}}
    (folder / reproduce.BAND).write_text(yaml.safe_dump(measured))
    ri_table({}).to_csv(folder / "ri.csv", index=False)
    predictions().to_parquet(folder / reproduce.PREDICTIONS, index=False)
    return folder


def test_the_same_run_is_reproduced(finished, kept):
    assert reproduce.compare(finished("run"), kept) == []


@pytest.mark.parametrize(("change", "is_fault"), [(1.9, False), (2.1, True), (-2.1, True)])
def test_mri_beyond_the_band_is_named(finished, kept, change, is_fault):
    """A change on one of two targets changes mRI by half."""
    faults = reproduce.compare(finished("run", {("large", "red"): change}), kept)
    assert len(faults) == 2 * is_fault, "one for each seed"
    assert all(fault.startswith("large, ft") for fault in faults)


@pytest.mark.parametrize(("images", "is_fault"), [(2, False), (3, True)])
def test_more_differing_predictions_than_measured_are_named(finished, kept, images, is_fault):
    differing = {("small", row) for row in range(images)}
    faults = reproduce.compare(finished("run", differing=differing), kept)
    assert len(faults) == is_fault
    assert all(fault.startswith(f"small: {images} ") for fault in faults)


def test_a_run_that_is_missing_is_named(finished, kept):
    project = finished("run")
    table = pd.read_csv(project / reproduce.RI)
    table[table["model"] == "small"].to_csv(project / reproduce.RI, index=False)
    faults = reproduce.compare(project, kept)
    assert len(faults) == 2, "one for each seed"
    assert all("doesn't have it" in fault for fault in faults)


def test_the_band_is_the_largest_difference_of_any_two(finished):
    runs = {
        "AVX2": finished("avx2"),
        "AVX": finished("avx", {("small", "red"): 3}, differing={("large", 0)}),
        "SSE": finished("sse", {("small", "red"): -1}, differing={("large", 1), ("large", 2)}),
    }
    assert reproduce.band(runs) == {
        "differing_predictions": 3,
        "mri": {"large": {"ft": 0.0}, "small": {"ft": 2.0}},
    }


@pytest.mark.parametrize("missing", [reproduce.RI, reproduce.ROWS.format(model="small")])
def test_a_run_that_is_not_finished_is_refused(finished, kept, missing):
    project = finished("run")
    (project / missing).unlink()
    with pytest.raises(SystemExit, match="make run"):
        reproduce.compare(project, kept)


def test_a_run_of_other_images_is_refused(finished, kept):
    predictions().iloc[1:].to_parquet(kept / reproduce.PREDICTIONS, index=False)
    with pytest.raises(SystemExit, match="other networks or images"):
        reproduce.compare(finished("run"), kept)

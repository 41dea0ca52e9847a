"""mRI without filtered datasets: the table against means that are written out here."""

import numpy as np

from rib.analyses.filtered.settings import FilteredSettings
from rib.analyses.filtered.tables import filtered_table
from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import write_counts
from rib.analysis.settings import RIStatistics
from rib.config.run import PRETRAINED
from tiny.states import counts_without_shared_objects, state_of

OBJECTS = {"a": 40, "b": 30, "c": 20, "hard": 50, "clean": 25}
TARGETS = ("a", "b")
STATISTICS = RIStatistics(
    ood_datasets=["a", "b", "c", "hard"],
    source_groups=None,
    replicates=200,
    confidence=0.9,
    seed=3,
)
SETTINGS = FilteredSettings(ri=STATISTICS, filtered=["hard"], conditions="", code="")


def made_up_counts():
    """Random right answers of a pretrained network and of its fine-tuning on two targets."""
    rng = np.random.default_rng(7)
    pretrained = state_of("cnn", PRETRAINED, "none", "all", 0)
    states = sorted([pretrained, *(state_of("cnn", "ft", target, "all", 0) for target in TARGETS)])
    correct = {
        name: rng.integers(0, 2, (len(states), number)).astype(np.uint16)
        for name, number in OBJECTS.items()
    }
    return counts_without_shared_objects(states, OBJECTS, correct)


def mri(counts, datasets):
    """mRI on the given datasets, observed and of each replicate of objects, by hand."""
    weights = object_weights(counts.objects, STATISTICS.replicates, STATISTICS.seed)
    row_of = {(state.run.method, state.run.target): i for i, state in enumerate(counts.states)}
    before = row_of[PRETRAINED, "none"]
    ri_of_targets = []
    for target in TARGETS:
        after = row_of["ft", target]
        changes = []
        for name in set(datasets) - {target}:
            weights_of_images = weights[:, counts.object_indices[name]].astype(float)
            right = counts.correct[name].astype(float)
            change = weights_of_images @ (right[after] - right[before])
            changes.append(100 * change / weights_of_images.sum(axis=1))
        ri_of_targets.append(np.mean(changes, axis=0))
    return np.mean(ri_of_targets, axis=0)


def test_mri_with_and_without_filtered_datasets_and_their_difference(tmp_path):
    counts = made_up_counts()
    write_counts(counts, tmp_path / "counts.npz")

    (row,) = filtered_table(tmp_path / "counts.npz", SETTINGS).to_dict("records")

    with_hard = mri(counts, ["a", "b", "c", "hard"])
    without = mri(counts, ["a", "b", "c"])
    assert (row["model"], row["method"], row["targets"], row["seeds"]) == ("cnn", "ft", 2, 1)
    assert not np.isclose(row["difference"], 0)
    expected = {
        ("mri", "ci_low", "ci_high"): with_hard,
        ("without", "without_low", "without_high"): without,
        ("difference", "difference_low", "difference_high"): without - with_hard,
    }
    for columns, values in expected.items():
        assert np.allclose([row[column] for column in columns], estimate(values, 0.9))

"""Distances between datasets against closed forms, definitions written out, and what holds for any distance."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from scipy.linalg import sqrtm
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from rib.analysis import compression, distances
from rib.analysis.distances import Sample
from rib.io import UserError


def of_two_classes(rng, n, shift=0.0):
    """n images of two equally frequent classes far apart."""
    labels = np.arange(n) % 2
    return Sample(rng.normal(size=(n, 3)) + 100 * labels[:, None] + shift, labels)


def gaussian_w2(mean_a, cov_a, mean_b, cov_b):
    """Squared 2-Wasserstein distance between two Gaussians (Dowson & Landau 1982), through matrix roots."""
    root = sqrtm(cov_a)
    return ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(root @ cov_b @ root)))


def label_cost(first, second):
    return gaussian_w2(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))


def test_distances_of_fitted_gaussians_are_those_of_their_matrices():
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) for n in (6, 30)]
    second = [rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) + 2 for n in (9, 5, 40)]
    expected = [[label_cost(a, b) for b in second] for a in first]
    np.testing.assert_allclose(distances.gaussian_distances(first, second), expected, rtol=1e-6)
    # more dimensions than images: the covariances have no full rank
    first, second = rng.normal(size=(5, 12)), rng.normal(size=(7, 12)) * 2
    found = distances.gaussian_distances([first], [second])[0, 0]
    np.testing.assert_allclose(found, label_cost(first, second), rtol=1e-4)


def test_the_distance_between_gaussians_has_its_closed_form():
    """Of diagonal covariances the roots are those of the diagonals."""
    rng = np.random.default_rng(1)
    scales, means = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 0.5]]), np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0]])
    first, second = (rng.normal(size=(200_000, 3)) * scale + mean for scale, mean in zip(scales, means, strict=True))
    expected = np.sqrt((np.diff(means, axis=0) ** 2).sum() + (np.diff(scales, axis=0) ** 2).sum())
    assert distances.frechet(first, second) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("gaussian", [True, False])
def test_otdd_is_zero_of_equal_sets_and_symmetric(gaussian):
    rng = np.random.default_rng(2)
    first, second = of_two_classes(rng, 40), of_two_classes(rng, 40, shift=1)
    shuffled = rng.permutation(40)
    again = Sample(first.features[shuffled], 7 - first.labels[shuffled])  # neither order nor names of labels matter
    assert distances.otdd(first, again, gaussian) == pytest.approx(0, abs=1e-4)
    there, back = distances.otdd(first, second, gaussian), distances.otdd(second, first, gaussian)
    assert there == pytest.approx(back) and there > 1


def test_otdd_of_shifted_sets_counts_the_shift_for_images_and_for_labels():
    """A set moved by v: the best plan moves each image by v, and each label's Gaussian too."""
    first = of_two_classes(np.random.default_rng(3), 50)
    second = Sample(first.features + np.array([0.3, 0.0, 0.4]), first.labels)
    for gaussian in (True, False):
        assert distances.otdd(first, second, gaussian) == pytest.approx(0.5 * np.sqrt(2), rel=1e-6)


def test_otdd_of_large_samples_nears_the_closed_form_of_their_gaussians():
    """Two classes far apart: images and labels each cost the squared distance between a class's two Gaussians."""
    rng = np.random.default_rng(4)
    n, scale, shift = 1000, 2.0, 3.0
    labels = np.arange(n) % 2
    sets = [
        Sample(rng.normal(size=(n, 2)) * factor + 50 * labels[:, None] + move, labels)
        for factor, move in ((1.0, 0.0), (scale, shift))
    ]
    squared = 2 * (scale - 1) ** 2 + 2 * shift**2  # per class, in two dimensions
    assert distances.otdd(*sets, gaussian=True) == pytest.approx(np.sqrt(2 * squared), rel=0.03)


@pytest.mark.parametrize("gaussian", [True, False])
def test_otdd_is_the_optimum_of_the_transport_problem(gaussian):
    """Against the linear programme over all plans, with label costs from matrix roots."""
    rng = np.random.default_rng(5)
    sets = []
    for classes in (2, 3):
        labels = np.repeat(np.arange(classes), 12 // classes)
        sets.append(Sample(rng.normal(size=(12, 2)) + rng.normal(size=(3, 2))[labels], labels))
    cost = cdist(*(part.features for part in sets), "sqeuclidean")
    for i, j in np.ndindex(cost.shape):
        own = [part.features[part.labels == part.labels[place]] for part, place in zip(sets, (i, j), strict=True)]
        cost[i, j] += label_cost(*own) if gaussian else ((own[0].mean(0) - own[1].mean(0)) ** 2).sum()
    sums = np.concatenate([np.kron(np.eye(12), np.ones(12)), np.kron(np.ones(12), np.eye(12))])
    plan = linprog(cost.ravel(), A_eq=sums, b_eq=np.full(24, 1 / 12))
    assert distances.otdd(*sets, gaussian) == pytest.approx(np.sqrt(plan.fun), rel=1e-6)


def test_one_image_per_class_makes_labels_the_images():
    rng = np.random.default_rng(6)
    sets = [Sample(rng.normal(size=(20, 3)), rng.permutation(20)) for _ in range(2)]
    cost = cdist(*(part.features for part in sets), "sqeuclidean")
    best = linprog(
        cost.ravel(),
        A_eq=np.concatenate([np.kron(np.eye(20), np.ones(20)), np.kron(np.ones(20), np.eye(20))]),
        b_eq=np.full(40, 1 / 20),
    ).fun
    assert distances.otdd(*sets, gaussian=False) == pytest.approx(np.sqrt(2 * best))


def test_otdd_refuses_samples_of_different_sizes():
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="one size"):
        distances.otdd(of_two_classes(rng, 8), of_two_classes(rng, 10), True)


def test_mmd_is_the_sum_over_pairs_that_defines_it():
    rng = np.random.default_rng(8)
    x, y, width = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.5, 1.7

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * width**2))

    expected = 0.0
    for own in (x, y):
        for i in range(len(own)):
            for j in range(len(own)):
                if i != j:
                    expected += k(own[i], own[j]) / (len(own) * (len(own) - 1))
    for a in x:
        for b in y:
            expected -= 2 * k(a, b) / (len(x) * len(y))
    assert distances.mmd2(x, y, width) == pytest.approx(expected, abs=1e-12)


def test_mmd_is_zero_on_average_between_draws_of_one_distribution():
    rng = np.random.default_rng(9)
    found = [distances.mmd2(*rng.normal(size=(2, 20, 4)), 2.0) for _ in range(2000)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error < 0.002 and min(found) < 0


def test_the_bandwidth_is_the_median_distance_between_all_images():
    rng = np.random.default_rng(10)
    sets = [rng.normal(size=(15, 3)), rng.normal(size=(15, 3)) + 4]
    pairs = itertools.combinations(np.concatenate(sets), 2)
    assert distances.median_distance(sets) == pytest.approx(np.median([np.linalg.norm(a - b) for a, b in pairs]))


def test_principal_axes_are_orthonormal_and_hold_the_largest_variances():
    rng = np.random.default_rng(11)
    sets = rng.normal(size=(3, 50, 5)) * np.array([1, 5, 0.1, 3, 2])
    axes, share = distances.principal_axes(sets, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    assert np.abs(axes).argmax(axis=0).tolist() == [1, 3]
    pooled = np.concatenate(list(sets))
    assert share == pytest.approx((pooled @ axes).var(axis=0).sum() / pooled.var(axis=0).sum())


def test_the_table_has_every_pair_and_says_how_it_was_measured():
    rng = np.random.default_rng(12)
    samples = {name: of_two_classes(rng, 30, shift) for name, shift in {"a": 0, "b": 0.1, "c": 20}.items()}
    table = distances.distance_table(samples)
    assert list(table) == ["first", "second", "distance", "value", "n", "note"] and set(table["n"]) == {30}
    for _, part in table.groupby("distance"):
        assert list(zip(part["first"], part["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
        assert part["value"].idxmin() == part.index[0]
    notes = table.groupby("distance")["note"].first()
    assert notes["otdd"] == "labels as Gaussians" and notes["mmd2"].startswith("bandwidth ")
    assert notes["frechet"].startswith("3 principal components, 100.0% of the variance")
    single = {name: Sample(part.features, np.arange(30)) for name, part in samples.items()}
    table = distances.distance_table(single)
    assert set(table.query("distance == 'otdd'")["note"]) == {
        "labels as points: fewer than 5 images per class in some sets"
    }


def stored(folder, name, n, layer="pre_logits"):
    """What a features job writes."""
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 3
    safetensors.numpy.save_file({layer: rng.normal(size=(n, 4)).astype(np.float32)}, folder / f"{name}.safetensors")
    sources = [f"{name}{i}" for i in range(n)]
    index = {"row": range(n), "image_id": sources, "label": labels, "source_id": sources, "object_id": sources}
    pq.write_table(pa.table({key: list(value) for key, value in index.items()}), folder / f"{name}.index.parquet")
    return folder / f"{name}.safetensors"


def test_every_set_gives_as_many_images_as_the_smallest_in_balance(tmp_path):
    paths = {name: stored(tmp_path, name, n) for name, n in {"large": 60, "small": 12}.items()}
    samples = distances.equal_samples(paths)
    assert [np.bincount(sample.labels).tolist() for sample in samples.values()] == [[4, 4, 4]] * 2
    whole = safetensors.numpy.load_file(paths["large"])["pre_logits"]
    assert {tuple(row) for row in samples["large"].features.astype(np.float32)} <= {tuple(row) for row in whole}
    distances.write_distances(paths, tmp_path / "a.csv")
    distances.write_distances(paths, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert len(pd.read_csv(tmp_path / "a.csv")) == 3


def test_too_few_images_and_a_missing_layer_are_said(tmp_path):
    paths = {name: stored(tmp_path, name, n) for name, n in {"large": 60, "small": 5}.items()}
    with pytest.raises(UserError, match="small gives 5 images"):
        distances.equal_samples(paths)
    with pytest.raises(UserError, match="no layer pre_logits, but stage1; add it to representations.layers"):
        distances.equal_samples({"other": stored(tmp_path, "other", 9, layer="stage1")})


def test_ncd_is_near_0_of_equal_sets_and_near_1_of_noise(monkeypatch):
    """Noise can't be compressed unless the second half refers to the first, farther back than the preset's own window."""
    monkeypatch.setattr(compression, "PRESET", 0)  # of 256 kB
    rng = np.random.default_rng(13)
    first, second = rng.integers(0, 256, (2, 20, 100, 100, 3), np.uint8)
    table = compression.compression_table({"first": first, "again": first, "second": second})
    same, other, _ = table["value"]
    assert 0 <= same < 0.01 and 0.99 < other < 1.01
    assert set(table["n"]) == {20} and set(table["note"]) == {"LZMA of 0.6 MB per set, 100 px, window of both"}


def test_ncd_is_its_formula_and_hardly_depends_on_the_order():
    assert compression.normalised_distance(100, 80, 150) == pytest.approx((150 - 80) / 100)
    rng = np.random.default_rng(14)
    first, other = rng.integers(0, 256, (2, 20, 32, 32, 3), np.uint8)
    sets = {"first": first, "half": np.concatenate([first[:10], other[10:]])}
    (there,) = compression.compression_table(sets)["value"]
    (back,) = compression.compression_table(dict(reversed(sets.items())))["value"]
    assert there == pytest.approx(0.5, abs=0.02) and back == pytest.approx(there, abs=0.02)

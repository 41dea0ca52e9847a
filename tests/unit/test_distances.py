"""Distances between datasets against closed forms and definitions written out.

What holds for any distance is tested, too.
"""

import itertools
import lzma
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from scipy.linalg import sqrtm
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from rib.analyses.distances import compression, distances
from rib.analyses.distances.distances import Sample
from rib.base.errors import UserError
from rib.config.geometry import Geometry
from rib.data.splits import TEST
from rib.data.stored_features import read_features
from rib.data.subsets import balanced_order, subset
from rib.data.view import DatasetFiles, load_dataset
from tiny.changed import replace
from tiny.tables import write
from tiny.training import SPACE, VIEW, prepared_folder, rows_of, split_file


def of_two_classes(rng, n, shift=0.0):
    """n images of two equally frequent classes far apart."""
    labels = np.arange(n) % 2
    return Sample(rng.normal(size=(n, 3)) + 100 * labels[:, None] + shift, labels)


def gaussian_w2(mean_a, cov_a, mean_b, cov_b):
    """Squared 2-Wasserstein distance between two Gaussians, through matrix roots.

    See Dowson & Landau 1982.
    """
    root = sqrtm(cov_a)
    return ((mean_a - mean_b) ** 2).sum() + np.trace(
        cov_a + cov_b - 2 * np.real(sqrtm(root @ cov_b @ root))
    )


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
    scales, means = (
        np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 0.5]]),
        np.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0]]),
    )
    first, second = (
        rng.normal(size=(200_000, 3)) * scale + mean
        for scale, mean in zip(scales, means, strict=True)
    )
    expected = np.sqrt((np.diff(means, axis=0) ** 2).sum() + (np.diff(scales, axis=0) ** 2).sum())
    assert distances.frechet(first, second) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("gaussian", [True, False])
def test_otdd_is_zero_of_equal_sets_and_symmetric(gaussian):
    rng = np.random.default_rng(2)
    first, second = of_two_classes(rng, 40), of_two_classes(rng, 40, shift=1)
    shuffled = rng.permutation(40)
    again = Sample(
        first.features[shuffled], 7 - first.labels[shuffled]
    )  # neither order nor names of labels matter
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
    """Two classes far apart.

    Images and labels each cost the squared distance between a class's two Gaussians.
    """
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
        own = [
            part.features[part.labels == part.labels[place]]
            for part, place in zip(sets, (i, j), strict=True)
        ]
        cost[i, j] += (
            label_cost(*own) if gaussian else ((own[0].mean(0) - own[1].mean(0)) ** 2).sum()
        )
    sums = np.concatenate([np.kron(np.eye(12), np.ones(12)), np.kron(np.ones(12), np.eye(12))])
    plan = linprog(cost.ravel(), A_eq=sums, b_eq=np.full(24, 1 / 12))
    assert distances.otdd(*sets, gaussian) == pytest.approx(np.sqrt(plan.fun), rel=1e-6)


def test_otdd_refuses_samples_of_different_sizes():
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="equal size"):
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
    assert distances.median_distance(sets) == pytest.approx(
        np.median([np.linalg.norm(a - b) for a, b in pairs])
    )


def test_principal_axes_are_orthonormal_and_hold_the_largest_variances():
    rng = np.random.default_rng(11)
    sets = rng.normal(size=(3, 50, 5)) * np.array([1, 5, 0.1, 3, 2])
    axes, share = distances.principal_axes(sets, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    assert np.abs(axes).argmax(axis=0).tolist() == [1, 3]
    pooled = np.concatenate(list(sets))
    assert share == pytest.approx((pooled @ axes).var(axis=0).sum() / pooled.var(axis=0).sum())


def stored(folder, name, n, layer="pre_logits"):
    """What a features job writes."""
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 3
    safetensors.numpy.save_file(
        {layer: rng.normal(size=(n, 4)).astype(np.float32)}, folder / f"{name}.safetensors"
    )
    sources = [f"source{i}" for i in range(n)]
    index = {
        "row": range(n),
        "image_id": sources,
        "label": labels,
        "source_id": sources,
        "object_id": sources,
    }
    pq.write_table(
        pa.table({key: list(value) for key, value in index.items()}),
        folder / f"{name}.index.parquet",
    )
    return folder / f"{name}.safetensors"


def test_too_few_images_and_a_missing_layer_are_refused(tmp_path):
    paths = {name: stored(tmp_path, name, n) for name, n in {"large": 60, "small": 5}.items()}
    with pytest.raises(UserError, match="small .* 5 images"):
        distances.equal_samples(paths)
    with pytest.raises(UserError, match=r"pre_logits.*stage1.*representations\.layers"):
        distances.equal_samples({"other": stored(tmp_path, "other", 9, layer="stage1")})


def test_ncd_is_near_0_of_equal_sets_and_near_1_of_noise(monkeypatch):
    """Noise can't be compressed unless the second half refers to the first.

    That is farther back than the preset's own window.
    """
    monkeypatch.setattr(compression, "PRESET", 0)  # of 256 kB
    rng = np.random.default_rng(13)
    first, second = rng.integers(0, 256, (2, 20, 100, 100, 3), np.uint8)
    table = compression.compression_table({"first": first, "again": first, "second": second})
    same, other, _ = table["value"]
    assert 0 <= same < 0.01 and 0.99 < other < 1.01
    assert set(table["n"]) == {20} and set(table["note"]) == {
        "LZMA of 0.6 MB per set, 100 px, window of both"
    }


def test_ncd_is_the_share_that_differs_and_hardly_depends_on_the_order():
    rng = np.random.default_rng(14)
    first, other = rng.integers(0, 256, (2, 20, 32, 32, 3), np.uint8)
    sets = {"first": first, "half": np.concatenate([first[:10], other[10:]])}
    (there,) = compression.compression_table(sets)["value"]
    (back,) = compression.compression_table(dict(reversed(sets.items())))["value"]
    assert there == pytest.approx(0.5, abs=0.02) and back == pytest.approx(there, abs=0.02)


def test_squared_distances_are_scipys_and_never_negative_far_from_the_origin():
    rng = np.random.default_rng(15)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    np.testing.assert_allclose(
        distances.squared_distances(x, y), cdist(x, y, "sqeuclidean"), rtol=1e-12
    )
    same = distances.squared_distances(x + 1e7, x + 1e7)
    assert (same >= 0).all() and same.diagonal().max() < 1e-6
    np.testing.assert_allclose(same, cdist(x, x, "sqeuclidean"), atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 30])
def test_the_root_of_a_covariance_is_no_larger_than_it_need_be(n):
    x = np.random.default_rng(n).normal(size=(n, 4))
    root = distances.covariance_root(x)
    np.testing.assert_allclose(root.T @ root, np.cov(x.T), atol=1e-12)
    assert root.shape == (min(n, 4), 4)
    one = distances.covariance_root(x[:1])
    assert one.shape == (1, 4) and (one == 0).all()


def test_sets_of_single_images_differ_by_their_places_alone():
    x, y = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    assert distances.gaussian_distances([x, y], [y]).tolist() == [[25.0], [0.0]]
    assert distances.frechet(x, y) == 5


def test_otdd_of_two_images_by_hand():
    """On a line, 0 and 10 of two classes against 1 and 12.

    Each moves to the near one, and so does its label.
    """
    first, second = (
        Sample(np.array([[0.0], [10.0]]), np.array([0, 1])),
        Sample(np.array([[12.0], [1.0]]), np.array([3, 4])),
    )
    assert distances.otdd(first, second, gaussian=False) == pytest.approx(
        np.sqrt((2 * 1 + 2 * 4) / 2)
    )
    mixed = Sample(np.array([[12.0], [1.0]]), np.array([3, 3]))  # one class, whose mean is 6.5
    cost = (1 + 6.5**2 + 4 + 3.5**2) / 2
    assert distances.otdd(first, mixed, gaussian=False) == pytest.approx(np.sqrt(cost))


def test_the_bandwidth_of_large_sets_is_that_of_their_first_images(monkeypatch):
    monkeypatch.setattr(distances, "MEDIAN_OF", 17)
    rng = np.random.default_rng(16)
    sets = [rng.normal(size=(30, 3)) + shift for shift in (0, 5, 9)]
    pairs = itertools.combinations(
        np.concatenate([values[:5] for values in sets]), 2
    )  # 17 images, shared by three sets
    assert distances.median_distance(sets) == pytest.approx(
        np.median([np.linalg.norm(a - b) for a, b in pairs])
    )
    monkeypatch.setattr(distances, "MEDIAN_OF", 1)
    pairs = itertools.combinations(np.concatenate([values[:2] for values in sets]), 2)
    assert distances.median_distance(sets) == pytest.approx(
        np.median([np.linalg.norm(a - b) for a, b in pairs])
    )


def test_the_axes_of_one_dimension_are_that_dimension():
    axes, share = distances.principal_axes(np.random.default_rng(0).normal(size=(2, 9, 1)), 1)
    assert np.abs(axes).tolist() == [[1.0]] and share == 1


def test_every_value_of_the_table_is_its_distance():
    """31 images of 10 dimensions: Gaussians are fitted in (31 - 1) / 5 = 6 of them."""
    rng = np.random.default_rng(17)
    labels = np.arange(31) % 6  # of each class 5 images at least
    samples = {
        name: Sample(rng.normal(size=(31, 10)) + shift, labels)
        for name, shift in (("a", 0), ("b", 1), ("c", 3))
    }
    table = distances.distance_table(samples)
    pooled = np.concatenate([sample.features for sample in samples.values()])
    width = np.median([np.linalg.norm(a - b) for a, b in itertools.combinations(pooled, 2)])
    variances, vectors = np.linalg.eigh(np.cov(pooled.T))
    axes = vectors[:, ::-1][:, :6]
    assert list(table) == ["first", "second", "distance", "value", "n", "note"]
    kinds = itertools.product(("ab", "ac", "bc"), ("otdd", "mmd2", "frechet"))
    assert [(line.first + line.second, line.distance) for line in table.itertuples()] == list(kinds)
    for line in table.itertuples():
        x, y = samples[line.first], samples[line.second]
        expected = {
            "otdd": distances.otdd(x, y, True),
            "mmd2": distances.mmd2(x.features, y.features, width),
            "frechet": np.sqrt(label_cost(x.features @ axes, y.features @ axes)),
        }[line.distance]
        assert line.value == pytest.approx(expected, rel=1e-6) and line.n == 31
    notes = table.set_index("distance")["note"]
    assert set(notes["otdd"]) == {"labels as Gaussians"} and set(notes["mmd2"]) == {
        f"bandwidth {width:.4g}"
    }
    share = variances[::-1][:6].sum() / variances.sum()
    assert set(notes["frechet"]) == {f"6 principal components, {share:.1%} of the variance"}
    flat = {name: Sample(sample.features[:, :3], labels) for name, sample in samples.items()}
    notes = distances.distance_table(flat).set_index("distance")["note"]
    assert set(notes["frechet"]) == {"3 principal components, 100.0% of the variance"}
    # one set with more classes than its images allow is enough, and then every label of every set
    # is a point
    mixed = {**samples, "c": Sample(samples["c"].features, np.arange(31) % 7)}
    table = distances.distance_table(mixed).query("distance == 'otdd'")
    assert set(table["note"]) == {"labels as points: fewer than 5 images per class in some sets"}
    assert table["value"].iloc[0] == pytest.approx(
        distances.otdd(samples["a"], samples["b"], False)
    )


def test_as_many_images_as_the_smallest_set_has_but_no_fewer_than_six(tmp_path):
    paths = {
        name: stored(tmp_path, name, n)
        for name, n in {"large": 30, "small": 6, "middle": 10}.items()
    }
    samples = distances.equal_samples(paths)
    assert list(samples) == ["large", "small", "middle"]
    for name, sample in samples.items():
        values, dataset = read_features(paths[name], "pre_logits")
        order = balanced_order(dataset)[:6]
        assert (sample.features == values[order]).all() and sample.features.dtype == np.float64
        assert (sample.labels == dataset.labels[order]).all()
    write(
        distances.distances_of,
        datasets=list(paths),
        features=list(paths.values()),
        table=tmp_path / "d.csv",
    )
    expected = distances.distance_table(samples)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "d.csv"), expected, atol=1e-6)


def test_sizes_are_those_of_lzma_with_a_window_of_everything():
    rng = np.random.default_rng(18)
    noise = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    assert 20_000 < compression.compressed_size(noise) < 20_200
    assert compression.compressed_size(noise + noise) < 20_400, "the second half is the first"
    assert (
        compression.compressed_size(bytes(20_000)) < 100 and compression.compressed_size(b"") < 10
    )
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 20_000}]
    assert compression.compressed_size(noise) == len(
        lzma.compress(noise, lzma.FORMAT_RAW, filters=filters)
    )


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((100, 80, 100), 0.2), ((80, 100, 180), 1.0), ((100, 100, 100), 0.0), ((50, 200, 210), 0.8)],
)
def test_the_normalised_distance_by_hand(sizes, expected):
    assert compression.normalised_distance(*sizes) == pytest.approx(expected)


def test_the_table_of_compression_is_its_formula():
    rng = np.random.default_rng(19)
    images = {
        name: rng.integers(0, high, (4, 8, 8, 3), np.uint8)
        for name, high in (("a", 4), ("b", 16), ("c", 200))
    }
    table = compression.compression_table(images)
    assert list(zip(table["first"], table["second"], strict=True)) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    size = {name: compression.compressed_size(part.tobytes()) for name, part in images.items()}
    for line in table.itertuples():
        one, other = size[line.first], size[line.second]
        both = compression.compressed_size(
            images[line.first].tobytes() + images[line.second].tobytes()
        )
        assert line.value == pytest.approx((both - min(one, other)) / max(one, other))
        assert (line.distance, line.n, line.note) == (
            "ncd",
            4,
            "LZMA of 0.0 MB per set, 8 px, window of both",
        )
    assert list(table) == ["first", "second", "distance", "value", "n", "note"]


SMALL = replace(VIEW, geometry=Geometry(8, 1.0, "bicubic"))


@pytest.fixture
def prepared(tmp_path):
    """Three datasets of 8 px images, of which one takes 192 bytes."""
    rng = np.random.default_rng(20)
    for name, n in {"a": 40, "b": 30, "c": 50}.items():
        images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
        prepared_folder(
            tmp_path / name, SimpleNamespace(images=images, labels=np.arange(n) % 3, space=SPACE)
        )
        split_file(tmp_path / f"{name}.parquet", n)
    return lambda held_out: [
        DatasetFiles(
            name, tmp_path / name, split=tmp_path / f"{name}.parquet" if held_out else None
        )
        for name in "abc"
    ]


@pytest.mark.parametrize(("megabytes", "held_out"), [(1.0, False), (0.002, False), (1.0, True)])
def test_written_compression_is_of_as_many_images_as_fit(tmp_path, prepared, megabytes, held_out):
    """Of datasets that are split the test part is taken."""
    files = prepared(held_out)
    write(
        compression.compression_of,
        datasets=files,
        view=SMALL,
        megabytes=megabytes,
        table=tmp_path / "t.csv",
    )
    loaded = [load_dataset(one, SMALL, TEST) for one in files]
    n = min(int(megabytes * 1e6 / 192), *(len(dataset.labels) for dataset in loaded))
    assert n == (len(rows_of("test", 30)) if held_out else 30 if megabytes == 1 else 10)
    images = {}
    for dataset in loaded:
        chosen = subset(dataset, str(n), seed=0)
        images[dataset.name] = chosen.images[np.arange(n) if chosen.rows is None else chosen.rows]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "t.csv"), compression.compression_table(images), atol=1e-6
    )


def test_a_budget_of_less_than_an_image_is_refused(tmp_path, prepared):
    table = tmp_path / "t.csv"
    large = replace(VIEW, geometry=Geometry(224, 1.0, "bicubic"))
    for view, megabytes, needed in (
        (SMALL, 0.000191, "8 px.* 0.00 MB"),
        (large, 0.1, "224 px.* 0.15 MB"),
    ):
        with pytest.raises(UserError, match=f"compressed_megabytes.*{needed}"):
            write(
                compression.compression_of,
                datasets=prepared(False),
                view=view,
                megabytes=megabytes,
                table=table,
            )
    write(
        compression.compression_of,
        datasets=prepared(False),
        view=SMALL,
        megabytes=0.000193,
        table=table,
    )
    assert pd.read_csv(table)["n"].tolist() == [1] * 3

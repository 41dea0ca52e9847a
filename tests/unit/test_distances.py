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

from rib.analyses.distances import compression
from rib.analyses.distances import measure as distances
from rib.analyses.distances.measure import Sample
from rib.base.errors import UserError
from rib.data.splits import TEST
from rib.data.stored_features import read_features
from rib.data.subsets import balanced_order, subset
from rib.data.view import DatasetFiles, load_dataset
from rib.schema.geometry import Geometry
from tiny.changed import replace
from tiny.models.training import SPACE, VIEW, prepared_folder, rows_of, split_file
from tiny.tables.tables import write


def two_classes(rng, n, shift=0.0):
    """n images of two equally frequent classes far apart."""
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, 3)) + 100 * labels[:, None] + shift
    return Sample(features, labels)


def gaussian_w2(first_mean, first_covariance, second_mean, second_covariance):
    """Squared 2-Wasserstein distance between two Gaussians, through matrix roots.

    See Dowson & Landau 1982.
    """
    root = sqrtm(first_covariance)
    root_of_product = np.real(sqrtm(root @ second_covariance @ root))
    distance_of_means = ((first_mean - second_mean) ** 2).sum()
    return distance_of_means + np.trace(first_covariance + second_covariance - 2 * root_of_product)


def label_cost(first, second):
    """Squared distance between the Gaussians that are fitted to two sets of features."""
    return gaussian_w2(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))


def median_of_pairs(points):
    """The median distance between all pairs of points."""
    pairs = itertools.combinations(points, 2)
    return np.median([np.linalg.norm(first - second) for first, second in pairs])


# Gaussians


def test_distances_of_fitted_gaussians_are_those_of_their_matrices():
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) for n in (6, 30)]
    second = [rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) + 2 for n in (9, 5, 40)]
    matrix = distances.gaussian_distances(first, second)
    assert matrix.shape == (2, 3)
    for i, j in np.ndindex(matrix.shape):
        assert matrix[i, j] == pytest.approx(label_cost(first[i], second[j]), rel=1e-6)


def test_gaussians_may_have_more_dimensions_than_images():
    """Their covariances have no full rank."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(5, 12))
    second = rng.normal(size=(7, 12)) * 2
    matrix = distances.gaussian_distances([first], [second])
    assert matrix.item() == pytest.approx(label_cost(first, second), rel=1e-4)


def test_sets_of_single_images_differ_by_their_places_alone():
    x = np.array([[0.0, 0.0]])
    y = np.array([[3.0, 4.0]])
    assert distances.gaussian_distances([x, y], [y]).tolist() == [[25.0], [0.0]]
    assert distances.frechet(x, y) == 5


# Optimal transport


@pytest.mark.parametrize("gaussian", [True, False])
def test_otdd_is_zero_of_equal_sets_and_symmetric(gaussian):
    rng = np.random.default_rng(2)
    first = two_classes(rng, 40)
    second = two_classes(rng, 40, shift=1)

    other_order = rng.permutation(40)
    other_names = 7 - first.labels
    equal_set = Sample(first.features[other_order], other_names[other_order])
    assert distances.otdd(first, equal_set, gaussian) == pytest.approx(0, abs=1e-4), (
        "neither order nor names of labels matter"
    )

    there = distances.otdd(first, second, gaussian)
    back = distances.otdd(second, first, gaussian)
    assert there == pytest.approx(back)
    assert there > 1


def test_otdd_of_shifted_sets_counts_the_shift_for_images_and_for_labels():
    """A set moved by v: the best plan moves each image by v, and each label's Gaussian too."""
    first = two_classes(np.random.default_rng(3), 50)
    shift = np.array([0.3, 0.0, 0.4])
    length = 0.5
    second = Sample(first.features + shift, first.labels)
    for gaussian in (True, False):
        distance = distances.otdd(first, second, gaussian)
        assert distance == pytest.approx(np.sqrt(2 * length**2), rel=1e-6)


def random_classes(rng, n, classes):
    """n images of equally frequent classes, each about a point of its own."""
    labels = np.repeat(np.arange(classes), n // classes)
    class_means = rng.normal(size=(classes, 2))
    return Sample(rng.normal(size=(n, 2)) + class_means[labels], labels)


def features_of_same_class(sample, image):
    """Features of all images of the class of one image."""
    return sample.features[sample.labels == sample.labels[image]]


@pytest.mark.parametrize("gaussian", [True, False])
def test_otdd_is_the_optimum_of_the_transport_problem(gaussian):
    """Against the linear programme over all plans, with label costs from matrix roots."""
    # given
    n = 12
    rng = np.random.default_rng(5)
    first = random_classes(rng, n, classes=2)
    second = random_classes(rng, n, classes=3)
    cost = cdist(first.features, second.features, "sqeuclidean")
    for i, j in np.ndindex(cost.shape):
        first_class = features_of_same_class(first, i)
        second_class = features_of_same_class(second, j)
        if gaussian:
            cost[i, j] += label_cost(first_class, second_class)
        else:
            cost[i, j] += ((first_class.mean(0) - second_class.mean(0)) ** 2).sum()
    # when each image gives and takes one part in n
    sums_of_lines = np.kron(np.eye(n), np.ones(n))
    sums_of_columns = np.kron(np.ones(n), np.eye(n))
    plan = linprog(
        cost.ravel(),
        A_eq=np.concatenate([sums_of_lines, sums_of_columns]),
        b_eq=np.full(2 * n, 1 / n),
    )
    # then
    assert distances.otdd(first, second, gaussian) == pytest.approx(np.sqrt(plan.fun), rel=1e-6)


def test_otdd_of_two_images_by_hand():
    """On a line, 0 and 10 of two classes against 1 and 12.

    Each moves to the near one, and so does its label.
    """
    first = Sample(np.array([[0.0], [10.0]]), np.array([0, 1]))
    of_two_classes = Sample(np.array([[12.0], [1.0]]), np.array([3, 4]))
    distance = distances.otdd(first, of_two_classes, gaussian=False)
    moved_by_1 = 1 + 1
    moved_by_2 = 4 + 4
    assert distance == pytest.approx(np.sqrt((moved_by_1 + moved_by_2) / 2))

    of_one_class = Sample(np.array([[12.0], [1.0]]), np.array([3, 3]))
    mean = 6.5
    distance = distances.otdd(first, of_one_class, gaussian=False)
    moved_by_1 = 1 + (mean - 0) ** 2
    moved_by_2 = 4 + (10 - mean) ** 2
    assert distance == pytest.approx(np.sqrt((moved_by_1 + moved_by_2) / 2))


# Maximum mean discrepancy


def test_mmd_is_the_sum_over_pairs_that_defines_it():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(7, 3))
    y = rng.normal(size=(5, 3)) + 0.5
    width = 1.7

    def kernel(first, second):
        return np.exp(-((first - second) ** 2).sum() / (2 * width**2))

    expected = 0.0
    for points in (x, y):
        ordered_pairs = list(itertools.permutations(points, 2))
        for first, second in ordered_pairs:
            expected += kernel(first, second) / len(ordered_pairs)
    for first, second in itertools.product(x, y):
        expected -= 2 * kernel(first, second) / (len(x) * len(y))
    assert distances.mmd2(x, y, width) == pytest.approx(expected, abs=1e-12)


def test_mmd_is_zero_on_average_between_draws_of_one_distribution():
    rng = np.random.default_rng(9)
    draws = []
    for _ in range(2000):
        x, y = rng.normal(size=(2, 20, 4))
        draws.append(distances.mmd2(x, y, 2.0))
    error = np.std(draws) / np.sqrt(len(draws))
    assert 3 * error < 0.002
    assert abs(np.mean(draws)) < 3 * error
    assert min(draws) < 0


def test_the_bandwidth_is_the_median_distance_between_all_images():
    rng = np.random.default_rng(10)
    sets = [rng.normal(size=(15, 3)), rng.normal(size=(15, 3)) + 4]
    expected = median_of_pairs(np.concatenate(sets))
    assert distances.median_distance(sets) == pytest.approx(expected)


def test_the_bandwidth_of_large_sets_is_that_of_their_first_images(monkeypatch):
    rng = np.random.default_rng(16)
    sets = [rng.normal(size=(30, 3)) + shift for shift in (0, 5, 9)]

    # 17 images, shared by three sets
    monkeypatch.setattr(distances, "MEDIAN_OF", 17)
    first_five = np.concatenate([images[:5] for images in sets])
    assert distances.median_distance(sets) == pytest.approx(median_of_pairs(first_five))

    # at least two of each
    monkeypatch.setattr(distances, "MEDIAN_OF", 1)
    first_two = np.concatenate([images[:2] for images in sets])
    assert distances.median_distance(sets) == pytest.approx(median_of_pairs(first_two))


def test_squared_distances_are_scipys_and_never_negative_far_from_the_origin():
    rng = np.random.default_rng(15)
    x = rng.normal(size=(6, 4))
    y = rng.normal(size=(3, 4))
    expected = cdist(x, y, "sqeuclidean")
    np.testing.assert_allclose(distances.squared_distances(x, y), expected, rtol=1e-12)

    far = x + 1e7
    of_far_points = distances.squared_distances(far, far)
    assert (of_far_points >= 0).all()
    assert of_far_points.diagonal().max() < 1e-6
    np.testing.assert_allclose(of_far_points, cdist(x, x, "sqeuclidean"), atol=1e-6)


# Principal components


def test_principal_axes_are_orthonormal_and_hold_the_largest_variances():
    rng = np.random.default_rng(11)
    deviations = np.array([1, 5, 0.1, 3, 2])
    sets = rng.normal(size=(3, 50, 5)) * deviations
    axes, share = distances.principal_axes(sets, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    largest_components = np.abs(axes).argmax(axis=0)
    assert largest_components.tolist() == [1, 3]
    all_images = np.concatenate(list(sets))
    variance_along_axes = (all_images @ axes).var(axis=0).sum()
    assert share == pytest.approx(variance_along_axes / all_images.var(axis=0).sum())


def test_the_axes_of_one_dimension_are_that_dimension():
    axes, share = distances.principal_axes(np.random.default_rng(0).normal(size=(2, 9, 1)), 1)
    assert np.abs(axes).tolist() == [[1.0]]
    assert share == 1


# The table of distances


@pytest.fixture
def samples():
    """Three sets of 31 images of 10 dimensions, of six classes with five images at least."""
    rng = np.random.default_rng(17)
    labels = np.arange(31) % 6
    return {
        "a": Sample(rng.normal(size=(31, 10)), labels),
        "b": Sample(rng.normal(size=(31, 10)) + 1, labels),
        "c": Sample(rng.normal(size=(31, 10)) + 3, labels),
    }


def notes_by_distance(table):
    """What the table notes of each distance; it is the same for all pairs."""
    notes = {}
    for distance, lines in table.groupby("distance"):
        (notes[distance],) = set(lines["note"])
    return notes


def test_every_value_of_the_table_is_its_distance(samples):
    """31 images of 10 dimensions: Gaussians are fitted in (31 - 1) / 5 = 6 of them."""
    # given
    all_images = np.concatenate([sample.features for sample in samples.values()])
    width = median_of_pairs(all_images)
    variances, axes = np.linalg.eigh(np.cov(all_images.T))
    largest_axes = axes[:, -6:]
    # when
    table = distances.distance_table(samples)
    # then
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    expected_keys = [
        (*pair, distance) for pair in pairs for distance in ("otdd", "mmd2", "frechet")
    ]
    keys = table[["first", "second", "distance"]].itertuples(index=False, name=None)
    assert list(keys) == expected_keys
    assert set(table["n"]) == {31}
    value = table.set_index(["first", "second", "distance"])["value"]
    for first_name, second_name in pairs:
        first = samples[first_name]
        second = samples[second_name]
        expected = {
            "otdd": distances.otdd(first, second, True),
            "mmd2": distances.mmd2(first.features, second.features, width),
            "frechet": np.sqrt(
                label_cost(first.features @ largest_axes, second.features @ largest_axes)
            ),
        }
        assert value[first_name, second_name].to_dict() == pytest.approx(expected, rel=1e-6)
    share = variances[-6:].sum() / variances.sum()
    notes = notes_by_distance(table)
    assert f"{width:.4g}" in notes["mmd2"]
    assert notes["frechet"].startswith("6 ")
    assert f"{share:.1%}" in notes["frechet"]


def test_of_few_dimensions_all_are_principal_components(samples):
    of_three_dimensions = {
        name: Sample(sample.features[:, :3], sample.labels) for name, sample in samples.items()
    }
    notes = notes_by_distance(distances.distance_table(of_three_dimensions))
    assert notes["frechet"].startswith("3 ")
    assert "100.0%" in notes["frechet"]


def test_labels_are_points_if_one_set_has_too_few_images_of_a_class(samples):
    """One set with more classes than its images allow is enough for every label of every set."""
    of_seven_classes = Sample(samples["c"].features, np.arange(31) % 7)
    table = distances.distance_table({**samples, "c": of_seven_classes})
    assert "points" in notes_by_distance(table)["otdd"]
    value = table.set_index(["first", "second", "distance"])["value"]
    expected = distances.otdd(samples["a"], samples["b"], False)
    assert value["a", "b", "otdd"] == pytest.approx(expected)


def write_features(folder, name, n, layer="pre_logits"):
    """Write what a features job writes of n images; gives the file of features."""
    file = folder / f"{name}.safetensors"
    features = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    safetensors.numpy.save_file({layer: features}, file)
    sources = [f"source{number}" for number in range(n)]
    index = {
        "row": list(range(n)),
        "image_id": sources,
        "label": (np.arange(n) % 3).tolist(),
        "source_id": sources,
        "object_id": sources,
    }
    pq.write_table(pa.table(index), folder / f"{name}.index.parquet")
    return file


def test_as_many_images_as_the_smallest_set_has_but_no_fewer_than_six(tmp_path):
    # given
    files = {
        "large": write_features(tmp_path, "large", 30),
        "small": write_features(tmp_path, "small", 6),
        "middle": write_features(tmp_path, "middle", 10),
    }
    # when
    samples = distances.equal_samples(files)
    # then
    assert list(samples) == ["large", "small", "middle"]
    for name, sample in samples.items():
        features, dataset = read_features(files[name], "pre_logits")
        first_six = balanced_order(dataset)[:6]
        assert (sample.features == features[first_six]).all()
        assert sample.features.dtype == np.float64
        assert (sample.labels == dataset.labels[first_six]).all()
    # and the written table is theirs
    table_file = tmp_path / "distances.csv"
    write(
        distances.distances_of,
        datasets=list(files),
        features=list(files.values()),
        table=table_file,
    )
    expected = distances.distance_table(samples)
    pd.testing.assert_frame_equal(pd.read_csv(table_file), expected, atol=1e-6)


def test_too_few_images_and_a_missing_layer_are_refused(tmp_path):
    large = write_features(tmp_path, "large", 60)
    small = write_features(tmp_path, "small", 5)
    with pytest.raises(UserError, match="small .* 5 images"):
        distances.equal_samples({"large": large, "small": small})
    of_other_layer = write_features(tmp_path, "other", 9, layer="stage1")
    with pytest.raises(UserError, match=r"pre_logits.*stage1.*representations\.layers"):
        distances.equal_samples({"other": of_other_layer})


# Compression


def noise(rng, images, side):
    """Images of noise, which can't be compressed."""
    return rng.integers(0, 256, (images, side, side, 3), np.uint8)


def test_ncd_is_near_0_of_equal_sets_and_near_1_of_noise(monkeypatch):
    """Noise can't be compressed unless the second half refers to the first.

    That is farther back than the preset's own window.
    """
    monkeypatch.setattr(compression, "PRESET", 0)  # of 256 kB
    rng = np.random.default_rng(13)
    first = noise(rng, 20, 100)
    second = noise(rng, 20, 100)
    table = compression.compression_table({"first": first, "again": first, "second": second})
    value = table.set_index(["first", "second"])["value"]
    assert 0 <= value["first", "again"] < 0.01
    assert 0.99 < value["first", "second"] < 1.01
    assert set(table["n"]) == {20}


def test_ncd_is_the_share_that_differs_and_hardly_depends_on_the_order():
    rng = np.random.default_rng(14)
    first = noise(rng, 20, 32)
    other = noise(rng, 20, 32)
    half_of_each = np.concatenate([first[:10], other[10:]])
    (there,) = compression.compression_table({"first": first, "half": half_of_each})["value"]
    (back,) = compression.compression_table({"half": half_of_each, "first": first})["value"]
    assert there == pytest.approx(0.5, abs=0.02)
    assert back == pytest.approx(there, abs=0.02)


def test_sizes_are_those_of_lzma_with_a_window_of_everything():
    rng = np.random.default_rng(18)
    random_bytes = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    assert 20_000 < compression.compressed_size(random_bytes) < 20_200
    assert compression.compressed_size(random_bytes + random_bytes) < 20_400, (
        "the second half is the first"
    )
    assert compression.compressed_size(bytes(20_000)) < 100
    assert compression.compressed_size(b"") < 10
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 20_000}]
    compressed = lzma.compress(random_bytes, lzma.FORMAT_RAW, filters=filters)
    assert compression.compressed_size(random_bytes) == len(compressed)


def test_the_table_of_compression_is_its_formula():
    # given sets of which each is harder to compress than the one before
    rng = np.random.default_rng(19)
    images = {
        "a": rng.integers(0, 4, (4, 8, 8, 3), np.uint8),
        "b": rng.integers(0, 16, (4, 8, 8, 3), np.uint8),
        "c": rng.integers(0, 200, (4, 8, 8, 3), np.uint8),
    }
    # when
    table = compression.compression_table(images)
    # then
    assert table[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert set(table["distance"]) == {"ncd"}
    assert set(table["n"]) == {4}
    for line in table.itertuples():
        first = images[line.first].tobytes()
        second = images[line.second].tobytes()
        size_of_first = compression.compressed_size(first)
        size_of_second = compression.compressed_size(second)
        size_of_both = compression.compressed_size(first + second)
        smaller, larger = sorted([size_of_first, size_of_second])
        assert line.value == pytest.approx((size_of_both - smaller) / larger)


SMALL = replace(VIEW, geometry=Geometry(8, 1.0, "bicubic"))
IMAGES = {"a": 40, "b": 30, "c": 50}  # by dataset
BYTES_OF_IMAGE = 8 * 8 * 3


@pytest.fixture
def datasets(tmp_path):
    """Three datasets of 8 px images, each with a split, by name."""
    rng = np.random.default_rng(20)
    files = {}
    for name, n in IMAGES.items():
        dataset = SimpleNamespace(images=noise(rng, n, 8), labels=np.arange(n) % 3, space=SPACE)
        folder = prepared_folder(tmp_path / name, dataset)
        split = split_file(tmp_path / f"{name}.parquet", n)
        files[name] = DatasetFiles(name, folder, split=split)
    return files


def without_splits(datasets):
    """The whole datasets."""
    return [replace(files, split=None) for files in datasets.values()]


def first_images(dataset, n):
    """The n images of a dataset that nested subsets begin with."""
    chosen = subset(dataset, str(n), seed=0)
    rows = np.arange(n) if chosen.rows is None else chosen.rows
    return chosen.images[rows]


@pytest.mark.parametrize(("megabytes", "held_out"), [(1.0, False), (0.002, False), (1.0, True)])
def test_written_compression_is_of_as_many_images_as_fit(tmp_path, datasets, megabytes, held_out):
    """Of datasets that are split the test part is taken."""
    # given
    if held_out:
        files = list(datasets.values())
        images_of_smallest = len(rows_of("test", IMAGES["b"]))
    else:
        files = without_splits(datasets)
        images_of_smallest = IMAGES["b"]
    images_that_fit = int(megabytes * 1e6 / BYTES_OF_IMAGE)
    n = min(images_of_smallest, images_that_fit)
    # when
    table = tmp_path / "compression.csv"
    write(compression.compression_of, datasets=files, view=SMALL, megabytes=megabytes, table=table)
    # then
    images = {}
    for dataset_files in files:
        dataset = load_dataset(dataset_files, SMALL, TEST)
        images[dataset.name] = first_images(dataset, n)
    expected = compression.compression_table(images)
    pd.testing.assert_frame_equal(pd.read_csv(table), expected, atol=1e-6)


def test_a_budget_of_less_than_an_image_is_refused(tmp_path, datasets):
    table = tmp_path / "compression.csv"

    def write_within(megabytes, view):
        write(
            compression.compression_of,
            datasets=without_splits(datasets),
            view=view,
            megabytes=megabytes,
            table=table,
        )

    with pytest.raises(UserError, match="compressed_megabytes.*8 px.* 0.00 MB"):
        write_within(0.000191, SMALL)
    large = replace(VIEW, geometry=Geometry(224, 1.0, "bicubic"))
    with pytest.raises(UserError, match="compressed_megabytes.*224 px.* 0.15 MB"):
        write_within(0.1, large)
    assert not table.exists()

    write_within(0.000193, SMALL)
    assert pd.read_csv(table)["n"].tolist() == [1, 1, 1]

"""CKA against a reference that follows the definitions word by word.

Its invariances and the coverage of its intervals are tested, too.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from rib.analyses.epochs.tables import epoch_table
from rib.analyses.representations.tables import cka_table
from rib.base.errors import UserError
from rib.schema.run import RUN_COLUMNS, Run
from rib.statistics.cka import (
    Kernel,
    cka,
    hsic,
    jackknife_interval,
    mean_over,
    plain_cka,
)
from tiny.tables.tables import write

PRETRAINED_RUN = Run("m", "none", "pretrained", "all", 0)
FINE_TUNED_RUN = Run("m", "a", "ft", "all", 0)
# By dataset, the object that each image shows.
OBJECTS = {
    "a": [0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    "b": [2, 3, 9, 10, 11, 12, 13, 14, 15],
    "val": list(range(20, 32)),
}
OOD = ["a", "b"]
CONFIDENCE = 0.9
NORMAL_QUANTILE = 1.644854  # of the ends of such an interval


@pytest.fixture
def rng():
    """A generator of random numbers, with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def features(rng):
    """Two related sets of features of 30 images."""
    x = rng.normal(size=(30, 7))
    noise = rng.normal(size=(30, 5))
    y = x @ rng.normal(size=(7, 5)) + noise
    return x, y


def kernel_of(features, objects=None):
    """The kernel of features.

    Args:
        objects: of each image; by default, every image is an object of its own.
    """
    if objects is None:
        objects = np.arange(len(features))
    return Kernel.of(features, objects, "a")


def cka_of(x, y, objects=None):
    """Debiased CKA of two sets of features, on all images and without each object."""
    return cka(kernel_of(x, objects), kernel_of(y, objects))


def debiased_cka(x, y):
    """Debiased CKA on all images."""
    on_all_images, *_ = cka_of(x, y)
    return on_all_images


def naive_hsic(x, y):
    """Song et al. 2012, equation 5, with sums over distinct indices in place of matrix products."""
    n = len(x)
    kernel_x = x @ x.T
    kernel_y = y @ y.T
    trace = 0
    total_x = 0
    total_y = 0
    cross = 0
    for i, j in itertools.permutations(range(n), 2):
        trace += kernel_x[i, j] * kernel_y[i, j]
        total_x += kernel_x[i, j]
        total_y += kernel_y[i, j]
        for k in range(n):
            if k != j:
                cross += kernel_x[i, j] * kernel_y[j, k]
    product_of_totals = total_x * total_y / ((n - 1) * (n - 2))
    return (trace + product_of_totals - 2 * cross / (n - 2)) / (n * (n - 3))


def naive_cka(x, y):
    """CKA by its definition."""
    return naive_hsic(x, y) / np.sqrt(naive_hsic(x, x) * naive_hsic(y, y))


# The estimators


def test_hsic_and_cka_equal_a_naive_reference(features):
    x, y = (features_of_all[:12] for features_of_all in features)
    hsic_on_all_images, *_ = hsic(kernel_of(x), kernel_of(y))
    assert hsic_on_all_images == pytest.approx(naive_hsic(x, y), rel=1e-10)
    assert debiased_cka(x, y) == pytest.approx(naive_cka(x, y), rel=1e-10)


def test_each_value_without_a_group_equals_computing_it_again_without_its_images(features):
    x, y = (features_of_all[:14] for features_of_all in features)
    groups = np.array([0, 1, 2, 2, 3, 4, 5, 5, 5, 1, 6, 7, 8, 3])
    _, *without_groups = cka_of(x, y, groups)
    assert len(without_groups) == 9
    for group, value in enumerate(without_groups):
        is_other_group = groups != group
        expected = naive_cka(x[is_other_group], y[is_other_group])
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.thorough
def test_unbiased_hsic_of_independent_features_is_0_on_average(rng):
    draws = []
    for _ in range(4000):
        x = rng.normal(size=(8, 3))
        y = rng.normal(size=(8, 3))
        on_all_images, *_ = hsic(kernel_of(x), kernel_of(y))
        draws.append(on_all_images)
    standard_error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * standard_error


@pytest.mark.parametrize("estimate", [debiased_cka, plain_cka], ids=["debiased", "plain"])
def test_invariances(estimate, features, rng):
    x, y = features
    value = estimate(x, y)
    assert 0.2 < value < 0.99

    unchanged = pytest.approx(value, rel=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(7, 7)))
    assert estimate(x @ rotation, y) == unchanged
    assert estimate(-3.7 * x, 100 * y) == unchanged
    assert estimate(x + 5, y - 2) == unchanged
    assert estimate(y, x) == unchanged
    other_order = rng.permutation(len(x))
    assert estimate(x[other_order], y[other_order]) == unchanged
    assert estimate(x, x @ rotation) == pytest.approx(1, rel=1e-9)

    with_one_stretched = x * [100, 1, 1, 1, 1, 1, 1]
    assert estimate(with_one_stretched, y) != pytest.approx(value, rel=1e-2), (
        "not to any linear map"
    )


def test_with_few_images_independent_features_are_near_0_and_the_plain_estimate_is_not(rng):
    """With fewer images than dimensions, that is."""
    debiased = []
    plain = []
    for _ in range(20):
        x = rng.normal(size=(50, 500))
        y = rng.normal(size=(50, 500))
        debiased.append(debiased_cka(x, y))
        plain.append(plain_cka(x, y))
    assert abs(np.mean(debiased)) < 0.02
    assert np.mean(plain) > 0.8


def test_plain_cka_is_the_papers_formula(features):
    """Kornblith et al. 2019, section 3."""
    x, y = (values - values.mean(axis=0) for values in features)
    norm = np.linalg.norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert plain_cka(*features) == pytest.approx(expected, rel=1e-10)


def test_equal_features_have_a_cka_of_exactly_1_and_constant_ones_none(features):
    x, _ = features
    values = cka_of(x, x.copy())
    assert values[0] == pytest.approx(1)
    assert jackknife_interval(values, 0.95) == pytest.approx((1, 1), abs=1e-9)
    constant = np.ones((30, 4))
    assert np.isnan(cka_of(x, constant)).all()
    assert np.isnan(plain_cka(constant, x))


def test_four_images_must_be_left_without_any_object(rng):
    x = rng.normal(size=(6, 3))
    four_are_left = np.array([0, 0, 1, 2, 3, 4])
    three_are_left = np.array([0, 0, 0, 1, 2, 3])
    Kernel.of(x, four_are_left, "a")
    with pytest.raises(UserError, match="^a: .* 4 images"):
        Kernel.of(x, three_are_left, "a")
    with pytest.raises(UserError, match="^a: .* 4 images"):
        Kernel.of(x[:4], np.arange(4), "a")

    five_images = rng.normal(size=(2, 5, 3))
    assert np.isfinite(cka_of(*five_images)).all()


def test_features_far_from_the_origin_lose_nothing(rng):
    x, y = rng.normal(size=(2, 12, 4)).astype(np.float32)
    far = x + 1000
    expected = naive_cka(as_stored(far), as_stored(y))
    assert debiased_cka(far, y) == pytest.approx(expected, rel=1e-9)


# Intervals


@pytest.mark.parametrize("n", [2, 8])
def test_the_jackknifes_error_is_its_formula(n):
    """Efron & Tibshirani 1993, equation 11.5.

    The root of (n - 1) / n times the sum of squares about the mean.
    """
    values = np.tanh(np.random.default_rng(n).normal(0.8, 0.2, 1 + n))
    transformed = np.arctanh(values)
    on_all_images = transformed[0]
    without_each = transformed[1:]
    error = np.sqrt((n - 1) / n * sum((without_each - without_each.mean()) ** 2))
    for confidence, quantile in {0.95: 1.959964, 0.9: 1.644854, 0.5: 0.674490}.items():
        low, high = jackknife_interval(values, confidence)
        assert np.arctanh(low) == pytest.approx(on_all_images - quantile * error, rel=1e-5)
        assert np.arctanh(high) == pytest.approx(on_all_images + quantile * error, rel=1e-5)


def test_intervals_end_below_1_and_contain_what_they_are_of():
    all_equal = np.array([1.0, 1.0, 1.0])
    low, high = jackknife_interval(all_equal, 0.9)
    assert 1 - 1e-9 < low <= high < 1 + 1e-9

    near_minus_1 = np.array([-0.9, -0.95, -0.8, -0.9])
    low, high = jackknife_interval(near_minus_1, 0.9)
    assert -1 < low < -0.9 < high < 0


@pytest.mark.thorough
def test_intervals_cover_the_truth_as_often_as_they_say(rng):
    """Gaussian features with a shared latent z: x = z, and y = z + noise of the same size.

    CKA of many images is the truth.
    """
    # given
    dimensions = 5
    deviations = np.arange(1, 1 + dimensions) / 2

    def draw(images):
        """Features x and y of some images."""
        z = rng.normal(size=(images, dimensions)) * deviations
        noise = rng.normal(size=(images, dimensions)) * deviations
        return z, z + noise

    truth = plain_cka(*draw(images=4000))
    # when
    covers_truth = []
    for _ in range(300):
        values = cka_of(*draw(images=60))
        low, high = jackknife_interval(values, CONFIDENCE)
        assert low < values[0] < high < 1
        covers_truth.append(low <= truth <= high)
    # then
    assert 0.84 < np.mean(covers_truth) < 0.96


def test_an_object_is_left_out_of_all_datasets_that_have_it():
    # given CKA of two datasets, on all images and without each of their objects
    first = (np.array([0.5, 0.4, 0.6]), ["a", "b"])
    second = (np.array([0.9, 0.8, 1.0]), ["b", "c"])
    # when
    on_all_images, without_a, without_b, without_c = mean_over([first, second])
    # then
    assert on_all_images == pytest.approx((0.5 + 0.9) / 2)
    assert without_a == pytest.approx((0.4 + 0.9) / 2)
    assert without_b == pytest.approx((0.6 + 0.8) / 2)
    assert without_c == pytest.approx((0.5 + 1.0) / 2)


# The whole table, against the naive reference


def index_file(features):
    """The file that says of which images features are."""
    return features.with_suffix(".index.parquet")


def write_features(folder, run, dataset, features_of_layers):
    """Write a run's features of a dataset, with their index; gives the path.

    Args:
        features_of_layers: (images, dimensions) by layer, of the first images of the dataset.
    """
    path = folder / str(run) / f"{dataset}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    in_single_precision = {
        layer: features.astype(np.float32) for layer, features in features_of_layers.items()
    }
    save_file(in_single_precision, path)
    (images,) = {len(features) for features in features_of_layers.values()}
    index = pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(images)],
            "object_id": OBJECTS[dataset][:images],
            "label": 0,
        }
    )
    index.to_parquet(index_file(path))
    return path


def as_stored(features):
    """Features in the precision of their file, minus their mean."""
    stored = features.astype(np.float32).astype(np.float64)
    return stored - stored.mean(axis=0)


def write_cka_table(folder, features, ood_datasets=OOD):
    """The table of CKA by layer, as its job writes it."""
    file = folder / "cka.csv"
    write(
        cka_table,
        features=iter(features),
        ood_datasets=ood_datasets,
        conditions="protocol paper",
        confidence=CONFIDENCE,
        table=file,
    )
    return pd.read_csv(file, dtype={"size": str})


def write_epoch_table(folder, before, after, snapshots):
    """The table of CKA in the course of training, as its job writes it."""
    file = folder / "epochs.csv"
    write(
        epoch_table,
        before=iter(before),
        after=iter(after),
        snapshots=snapshots,
        ood_datasets=OOD,
        conditions="protocol paper",
        confidence=CONFIDENCE,
        table=file,
    )
    return pd.read_csv(file, dtype={"size": str})


def random_features(layers, rng):
    """Features of the images of every dataset, by dataset and layer."""
    features = {}
    for dataset, objects in OBJECTS.items():
        features[dataset] = {layer: rng.normal(size=(len(objects), 3)) for layer in layers}
    return features


def with_noise(features, rng):
    """The features, by dataset and layer, after a change at random."""
    changed = {}
    for dataset, features_of_layers in features.items():
        changed[dataset] = {}
        for layer, before in features_of_layers.items():
            changed[dataset][layer] = before + 0.7 * rng.normal(size=before.shape)
    return changed


def pretrained_run(model):
    """The run of a model before fine-tuning."""
    return Run(model, "none", "pretrained", "all", 0)


FINE_TUNED_RUNS = [
    Run("m", "a", "ft", "10", 3),
    Run("m", "b", "lwf", "all", 0),
    Run("n", "val", "ft", "all", 1),
]


@dataclass(frozen=True)
class RunsWithFeatures:
    """Two models, pretrained and fine-tuned, whose features of all datasets are in files."""

    features: dict  # by run, dataset and layer
    pretrained_files: list
    fine_tuned_files: list

    @property
    def files(self):
        """All files."""
        return [*self.pretrained_files, *self.fine_tuned_files]


def runs_with_features(folder, layers):
    """The runs `FINE_TUNED_RUNS` and their pretrained models, with features of these layers."""
    rng = np.random.default_rng(5)
    features = {}
    for model in ("m", "n"):
        before = random_features(layers, rng)
        features[pretrained_run(model)] = before
        for run in FINE_TUNED_RUNS:
            if run.model == model:
                features[run] = with_noise(before, rng)
    pretrained_files = []
    fine_tuned_files = []
    for run, features_of_datasets in features.items():
        files = pretrained_files if run.method == "pretrained" else fine_tuned_files
        for dataset, features_of_layers in features_of_datasets.items():
            files.append(write_features(folder / "features", run, dataset, features_of_layers))
    return RunsWithFeatures(features, pretrained_files, fine_tuned_files)


@dataclass(frozen=True)
class NaiveJackknife:
    """CKA on one dataset by its definition."""

    on_all_images: float
    without_object: dict  # by object, CKA without its images

    @classmethod
    def of(cls, x, y, objects):
        """Of features of a dataset, and the object that each image shows."""
        without_object = {}
        for name in sorted(set(objects)):
            is_other_object = np.array(objects) != name
            without_object[name] = naive_cka(x[is_other_object], y[is_other_object])
        return cls(naive_cka(x, y), without_object)


def naive_interval(on_all_images, without_objects):
    """The jackknife's interval on the artanh scale."""
    centre = np.arctanh(on_all_images)
    transformed = np.arctanh(without_objects)
    objects = len(transformed)
    squares = (transformed - transformed.mean()) ** 2
    error = np.sqrt((objects - 1) / objects * squares.sum())
    reach = NORMAL_QUANTILE * error
    return np.tanh(centre - reach), np.tanh(centre + reach)


def assert_lines_follow_definitions(table, features, layer_of_line, pretrained_layer_of_line):
    """Every line of a table against the naive reference.

    Args:
        features: by run, dataset and layer.
        layer_of_line, pretrained_layer_of_line: functions that give, for a line, the layers of the
            run and of the pretrained model that are compared.
    """
    for line in table.itertuples():
        run = Run(line.model, line.target, line.method, line.size, line.seed)
        datasets = [line.dataset]
        if line.dataset == "others":
            datasets = [dataset for dataset in OOD if dataset != run.target]
        of_datasets = []
        plain_of_datasets = []
        for dataset in datasets:
            features_before = features[pretrained_run(run.model)][dataset]
            before = as_stored(features_before[pretrained_layer_of_line(line)])
            after = as_stored(features[run][dataset][layer_of_line(line)])
            of_datasets.append(NaiveJackknife.of(before, after, OBJECTS[dataset]))
            plain_of_datasets.append(plain_cka(before, after))

        objects = set()
        for of_dataset in of_datasets:
            objects |= of_dataset.without_object.keys()
        means_without_objects = []
        for name in objects:
            without_object = [
                of_dataset.without_object.get(name, of_dataset.on_all_images)
                for of_dataset in of_datasets
            ]
            means_without_objects.append(np.mean(without_object))
        mean_cka = np.mean([of_dataset.on_all_images for of_dataset in of_datasets])

        low, high = naive_interval(mean_cka, means_without_objects)
        assert line.cka == pytest.approx(mean_cka, abs=2e-6)
        assert line.ci_low == pytest.approx(low, abs=2e-6)
        assert line.ci_high == pytest.approx(high, abs=2e-6)
        assert line.biased == pytest.approx(np.mean(plain_of_datasets), abs=2e-6)
        assert line.n == sum(len(OBJECTS[dataset]) for dataset in datasets)


def test_every_line_of_the_table_is_that_of_the_naive_reference(tmp_path):
    # given
    runs = runs_with_features(tmp_path, layers=["pre_logits", "stage2", "stage1"])
    # when
    table = write_cka_table(tmp_path, runs.files)
    # then
    keys = [*RUN_COLUMNS, "dataset", "layer", "depth"]
    expected_keys = []
    for run in FINE_TUNED_RUNS:
        for layer, depth in {"stage1": 1, "stage2": 2, "pre_logits": 5}.items():
            for dataset in ("a", "b", "val", "others"):
                expected_keys.append((*run.values(RUN_COLUMNS), dataset, layer, depth))
    assert list(table[keys].itertuples(index=False, name=None)) == expected_keys
    assert set(table["conditions"]) == {"protocol paper"}
    assert_lines_follow_definitions(
        table,
        runs.features,
        layer_of_line=lambda line: line.layer,
        pretrained_layer_of_line=lambda line: line.layer,
    )


def test_every_snapshot_is_compared_with_the_pretrained_models_last_features(tmp_path):
    # given
    runs = runs_with_features(tmp_path, layers=["snapshot1", "snapshot2", "pre_logits"])
    # when
    table = write_epoch_table(tmp_path, runs.pretrained_files, runs.fine_tuned_files, snapshots=2)
    # then
    datasets = 4  # with the mean over others
    of_each_run = [50] * datasets + [100] * datasets
    assert table["trained"].tolist() == of_each_run * len(FINE_TUNED_RUNS), "percent of all steps"
    snapshot_at = {50: "snapshot1", 100: "snapshot2"}
    assert_lines_follow_definitions(
        table,
        runs.features,
        layer_of_line=lambda line: snapshot_at[line.trained],
        pretrained_layer_of_line=lambda line: "pre_logits",
    )


def test_a_run_need_not_have_every_dataset_and_without_others_there_is_no_mean(tmp_path):
    # given that runs of `m` have features of `a` alone, and `a` alone is out of distribution
    runs = runs_with_features(tmp_path, layers=["stage1"])
    pretrained_files = [path for path in runs.pretrained_files if "/m/" in str(path)]
    fine_tuned_files = [
        path for path in runs.fine_tuned_files if "/m/" in str(path) and path.stem == "a"
    ]
    # when
    table = write_cka_table(tmp_path, [*pretrained_files, *fine_tuned_files], ood_datasets=["a"])
    # then ft, whose target is `a`, has no mean over others
    assert table[["method", "dataset"]].to_numpy().tolist() == [
        ["ft", "a"],
        ["lwf", "a"],
        ["lwf", "others"],
    ]


def test_too_few_images_no_run_and_features_of_no_head_are_refused(tmp_path, rng):
    features = rng.normal(size=(10, 3))
    before = write_features(tmp_path, PRETRAINED_RUN, "a", {"pre_logits": features})
    with pytest.raises(UserError, match="no fine-tuned run"):
        write_cka_table(tmp_path, [before])

    before = write_features(tmp_path, PRETRAINED_RUN, "a", {"stage4": features})
    after = write_features(tmp_path, FINE_TUNED_RUN, "a", {"snapshot1": features})
    with pytest.raises(UserError, match="'pre_logits'"):
        write_epoch_table(tmp_path, [before], [after], snapshots=1)

    of_few_images = {"pre_logits": features[:4]}
    before = write_features(tmp_path, PRETRAINED_RUN, "a", of_few_images)
    after = write_features(tmp_path, FINE_TUNED_RUN, "a", of_few_images)
    with pytest.raises(UserError, match="4 images"):
        write_cka_table(tmp_path, [before, after])


def test_images_of_another_order_or_object_are_other_images(tmp_path, rng):
    features = {"pre_logits": rng.normal(size=(10, 3))}
    before = write_features(tmp_path, PRETRAINED_RUN, "a", features)
    after = write_features(tmp_path, FINE_TUNED_RUN, "a", features)
    index = pd.read_parquet(index_file(after))
    for column in ("image_id", "object_id"):
        reversed_column = index[column].to_numpy()[::-1]
        index.assign(**{column: reversed_column}).to_parquet(index_file(after))
        with pytest.raises(UserError, match=r"m/a/ft/all/0/a\.safetensors"):
            write_cka_table(tmp_path, [before, after])

"""Rows of evaluation against scores written out by hand."""

import collections
import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rib.base.errors import PermanentError, UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.catalog.label_space import MOST_CLASSES, LabelSpace
from rib.data.dataset import PreparedDataset
from rib.data.view import DatasetFiles
from rib.evaluation.evaluate import (
    ENCODING,
    evaluate,
    rows_of_networks,
)
from rib.evaluation.evaluation_settings import EvaluationSettings
from rib.evaluation.networks import NetworkState, RunNetworks
from rib.evaluation.score import score
from rib.grid.evaluation_batches import images_per_pass
from rib.models import device as devices
from rib.models.images import Images
from rib.schema.part import DatasetPart
from rib.schema.run import Run
from tiny.changed import replace
from tiny.models.training import (
    CODE,
    COMPUTE,
    FINE_TUNED,
    MEAN,
    OF_CPU,
    SPACE,
    STD,
    VIEW,
    images_of,
    masked,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    resnet,
    rows_of,
    split_file,
)

RUN = Run("net", "set", "ft", "all", 3)
ROW = ["model", "target", "method", "size", "seed", "alpha", "dataset", "row"]
SCORES = ["prediction", "rank", "log_prob", "energy", "confidence", "margin", "brier"]
LARGEST_HALF = 65504  # the largest number of 16 bits


class Stated(nn.Module):
    """A network that says of the image of brightness i what line i of a table states."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, images):
        brightness = images[:, 0, 0, 0].round().long()
        return self.table[brightness]


def stated_dataset(space, labels):
    """Image i has brightness i; its input, at mean 0 and deviation 1, is i / 255."""
    brightness = np.arange(len(labels), dtype=np.uint8)
    images = np.tile(brightness[:, None, None, None], (1, 2, 2, 3))
    index = pa.table({"row": range(len(labels))})
    return PreparedDataset("set", images, np.array(labels), None, index, space)


def scores_of(tables, space, labels, batch_size=2):
    """Score networks that state logits.

    Args:
        tables: of each network, its logits (N, outputs) of all images.
        labels: the right class of each image.

    Returns:
        For each network its scores, see `score`, and the progress bar.
    """
    dataset = stated_dataset(space, labels)
    inputs = images_of(dataset, [0.0] * 3, [1 / 255] * 3)
    progress = Progress(desc="test", total=len(labels), unit="image")
    networks = [Stated(table) for table in tables]
    return score(networks, inputs, dataset, batch_size, progress), progress


class Operators(TorchDispatchMode):
    """Collects the names of all operators that torch calls, and how often tensors are cast."""

    def __init__(self):
        super().__init__()
        self.names = set()
        self.casts = collections.Counter()  # by the id of the tensor

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, _, _ = function.__name__.partition(".")
        self.names.add(name)
        if name == "_to_copy":
            self.casts[id(args[0])] += 1
        return function(*args, **(kwargs or {}))


def test_scoring_needs_no_operator_that_cuda_sorts_for():
    """Its deterministic forms of these sort all indices."""
    # given
    logits = [[0.0, 1.0], [2.0, 1.0]]
    # when
    with Operators() as operators:
        scores_of([logits], two_classes(), labels=[0, 0])
    # then
    sorting = ("scatter", "index_add", "index_put")
    assert "gather" in operators.names
    assert [name for name in operators.names if name.startswith(sorting)] == []


def test_prediction_confidence_and_margin_of_single_images():
    """Five outputs in three classes, {0, 3}, {1} and {4}.

    Output 2 belongs to none and counts for nothing.
    """
    # given
    space = LabelSpace(("a", "b", "c"), ((0, 3), (1,), (4,)), ("a", "b", "c"), 5)
    logits = [
        [1.0, 0.0, 9.0, 3.0, 2.0],  # a: 3, b: 0, c: 2
        [1.0, 0.0, 9.0, 3.0, 2.0],
        [2.0, 2.0, 9.0, 1.0, 2.0],  # equal
        [2.0, 2.0, 9.0, 1.0, 2.0],
        [-1.0, 5.0, 0.0, -2.0, 5.0],  # a: -1, b and c: 5
    ]
    labels = [0, 1, 0, 2, 2]
    # when
    (scores,), progress = scores_of([logits], space, labels)
    # then
    exp = np.exp
    sum_of_first_two = exp(3) + 1 + exp(2)
    sum_of_equal = 3 * exp(2)
    sum_of_last = exp(-1) + 2 * exp(5)
    energies = np.log([sum_of_first_two, sum_of_first_two, sum_of_equal, sum_of_equal, sum_of_last])
    first_two = exp(3) / sum_of_first_two
    confidences = [first_two, first_two, 1 / 3, 1 / 3, exp(5) / sum_of_last]
    logits_of_labels = [3, 0, 2, 2, 5]
    assert scores["prediction"].tolist() == [0, 0, 0, 0, 1], "the first of equal classes"
    margins = scores["margin"].tolist()
    assert margins == [1.0, -3.0, 0.0, 0.0, 0.0], "the label's minus the best of the others"
    assert scores["confidence"].tolist() == pytest.approx(confidences, rel=1e-6)
    ranks = scores["rank"].tolist()
    assert ranks == [0, 2, 0, 2, 1], "of equal classes, those with a lower index beat it"
    assert scores["energy"].tolist() == pytest.approx(energies, rel=1e-6)
    assert scores["log_prob"].tolist() == pytest.approx(logits_of_labels - energies, rel=1e-5)
    assert progress.n == 5


def two_classes():
    """A label space of two classes, each of one output."""
    return LabelSpace(("a", "b"), ((0,), (1,)), ("a", "b"), 2)


def scores_by_definition(logits, label, also_right):
    """Scores of an image, by name, from its class logits and their definitions.

    Args:
        logits: one of each class.
        label: the index of its class.
        also_right: indices of other classes that are right.
    """
    classes = range(len(logits))
    best_first = sorted(classes, key=lambda index: (-logits[index], index))
    prediction = best_first[0]
    right_classes = {label, *also_right}
    energy = np.log(np.exp(logits.astype(np.float64)).sum())
    logits_of_others = [logits[index] for index in classes if index not in right_classes]
    squared_errors = [(np.exp(logits[index] - energy) - (index == label)) ** 2 for index in classes]
    best_right = max(logits[index] for index in right_classes)
    return {
        "prediction": prediction,
        "rank": min(best_first.index(index) for index in right_classes),
        "log_prob": logits[label] - energy,
        "energy": energy,
        "confidence": np.exp(logits[prediction] - energy),
        "margin": best_right - max(logits_of_others, default=-np.inf),
        "brier": sum(squared_errors),
    }


def drawn_other_answers(rng, classes, most):
    """For each class, up to so many other classes, drawn, that are right for its images."""
    other_answers = []
    for label in range(classes):
        number = rng.integers(0, min(most, classes) + 1)
        drawn = rng.choice(classes, number, replace=False).tolist()
        other_answers.append(tuple(answer for answer in drawn if answer != label))
    return tuple(other_answers)


@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("most_others", [0, 3])
def test_scores_equal_the_reference_with_ties_and_several_right_answers(classes, most_others):
    # given
    rng = np.random.default_rng([classes, most_others])
    names = tuple(str(index) for index in range(classes))
    outputs = tuple((index,) for index in range(classes))
    other_answers = drawn_other_answers(rng, classes, most_others)
    stated_answers = other_answers if most_others else ()
    space = LabelSpace(names, outputs, names, classes, stated_answers)
    labels = rng.integers(0, classes, 200)
    logits = rng.integers(-2, 3, (200, classes)).astype(np.float32)
    # when
    (scores,), _ = scores_of([logits], space, labels, 64)
    # then
    for image, label in enumerate(labels):
        expected = scores_by_definition(logits[image], label, other_answers[label])
        scores_of_image = {name: float(column[image]) for name, column in scores.items()}
        assert scores_of_image == pytest.approx(expected, rel=1e-5, abs=1e-6)
    is_right = [
        prediction == label or prediction in other_answers[label]
        for prediction, label in zip(scores["prediction"].tolist(), labels, strict=True)
    ]
    assert (scores["rank"] == 0).tolist() == is_right


@pytest.mark.parametrize("not_finite", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("label", [0, 1])
def test_a_logit_that_is_not_finite_shows_in_the_energy_and_nan_is_never_right(not_finite, label):
    # given
    space = LabelSpace(("a", "b", "c"), ((0,), (1,), (2,)), ("a", "b", "c"), 3)
    logits = [[not_finite, 1.0, 0.0], [1.0, not_finite, 0.0]]
    # when
    (scores,), _ = scores_of([logits], space, [label, label])
    # then
    assert scores["energy"].isnan().all()
    if np.isnan(not_finite):
        assert (scores["rank"] > 0).all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_do_not_depend_on_batches_and_each_network_is_scored_by_itself(batch_size):
    # given
    rng = np.random.default_rng(0)
    logits_of_networks = rng.normal(size=(2, 7, 40)).astype(np.float32)
    labels = rng.integers(0, 3, 7)
    # when
    scores_of_networks, _ = scores_of(logits_of_networks, SPACE, labels, batch_size)
    # then
    for logits, scores in zip(logits_of_networks, scores_of_networks, strict=True):
        (scores_at_once,), _ = scores_of([logits], SPACE, labels, batch_size=7)
        torch.testing.assert_close(scores, scores_at_once)


def test_networks_compute_in_the_precision_that_was_chosen_and_scores_in_single(monkeypatch):
    # given
    network = resnet()
    dataset = random_images(5, 32)
    inputs = images_of(dataset, MEAN, STD)

    def margins():
        progress = Progress(desc="test", total=5, unit="image")
        (scores,) = score([network], inputs, dataset, 5, progress)
        return scores["margin"]

    # when
    margins_in_single = margins()
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    margins_in_bf16 = margins()
    # then
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        logits = network(inputs[slice(None)])
    class_logits = masked(logits.float(), SPACE)
    labels = torch.from_numpy(dataset.labels)
    of_labels = class_logits[torch.arange(5), labels]
    without_labels = class_logits.scatter(1, labels[:, None], float("-inf"))
    assert torch.equal(margins_in_bf16, of_labels - without_labels.amax(dim=1))
    assert not torch.equal(margins_in_bf16, margins_in_single)


def test_weights_are_cast_to_bf16_once_for_all_batches_and_give_what_each_batch_would(monkeypatch):
    # given
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    dataset = random_images(6, 32)
    inputs = images_of(dataset, MEAN, STD)
    networks = [resnet(), resnet()]
    with torch.no_grad():
        networks[1].fc.weight.mul_(2)
        networks[1].conv1[0].weight.mul_(-1)

    def scored(*networks):
        progress = Progress(desc="test", total=6, unit="image")
        return score(networks, inputs, dataset, 2, progress)

    # when
    with Operators() as operators:
        scores_of_networks = scored(*networks)
    # then
    times_cast = set()
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                times_cast.add(operators.casts[id(module.weight)])
    assert times_cast == {1}
    for network, scores in zip(networks, scores_of_networks, strict=True):
        energies = []
        for first in (0, 2, 4):
            with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
                class_logits = masked(network(inputs[slice(first, first + 2)]).float(), SPACE)
            energies.append(class_logits.logsumexp(dim=1))
        assert torch.equal(scores["energy"], torch.cat(energies))
    # and a network that has changed since is not scored as it was
    with torch.no_grad():
        networks[0].conv1[0].weight.mul_(-1)
    (scores_of_changed,) = scored(networks[0])
    assert not torch.equal(scores_of_changed["energy"], scores_of_networks[0]["energy"])


@pytest.mark.parametrize(("device", "images"), [("cpu", 64), ("cuda", 256)])
def test_the_images_of_a_pass_follow_the_device_unless_they_are_stated(device, images):
    assert images_per_pass("default", device) == images
    assert images_per_pass(7, device) == 7


# What a job writes.


@dataclass(frozen=True)
class JobFiles:
    """What an evaluation of a fine-tuned run reads, and the network that it is to score."""

    model_folder: Path
    prepared_folders: Mapping[str, Path]  # by dataset
    checkpoint: Path
    manifest: Path  # of the fine-tuning
    tuned_network: nn.Module


@pytest.fixture(scope="module")
def network():
    """The pretrained network."""
    return resnet()


@pytest.fixture(scope="module")
def datasets():
    """Images, labels and label space of two datasets, by name."""
    return {"first": random_images(9, 32, seed=1), "second": random_images(7, 32, seed=2)}


@pytest.fixture(scope="module")
def files(network, datasets, tmp_path_factory):
    """Files of the network, the datasets, and of a fine-tuning that moved two tensors."""
    folder = tmp_path_factory.mktemp("folders")
    tuned_network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    changed_tensors = {}
    for name in ("fc.weight", "conv1.0.weight"):
        tensor = tuned_network.get_parameter(name).data
        noise = torch.randn(tensor.shape, generator=generator)
        tensor += 0.2 * tensor.std() * noise
        changed_tensors[name] = tensor
    safetensors.torch.save_file(changed_tensors, folder / "ft.safetensors")
    write_json(folder / "ft.manifest.json", {**OF_CPU, "fit": 0.75})
    return JobFiles(
        model_folder=model_folder(folder / "model", network),
        prepared_folders={
            name: prepared_folder(folder / name, dataset) for name, dataset in datasets.items()
        },
        checkpoint=folder / "ft.safetensors",
        manifest=folder / "ft.manifest.json",
        tuned_network=tuned_network,
    )


def job(files, out, *, run=RUN, states=FINE_TUNED, view=VIEW, proxies=None, splits=None, **part):
    """Evaluate a run, and return the rows that are written.

    Args:
        files: a `JobFiles`.
        out: the folder into which rows and manifest are written.
        proxies, splits: the folder of the proxy and the file of the split, by dataset.
        part: `part` and `other_levels` of the settings; all images by default.
    """
    out.mkdir(exist_ok=True)
    proxies = proxies or {}
    splits = splits or {}
    evaluate(
        run=run,
        networks=RunNetworks(
            model_folder=files.model_folder, states=states, checkpoints={"ft": files.checkpoint}
        ),
        checkpoint_manifests=[files.manifest],
        datasets=[
            DatasetFiles(name, folder, proxy=proxies.get(name), split=splits.get(name))
            for name, folder in files.prepared_folders.items()
        ],
        settings=EvaluationSettings(
            view=view,
            evaluation_batch_size=4,
            compute=COMPUTE,
            datasets=list(files.prepared_folders),
            excludes_proxy=[],
            code=CODE,
            **part,
        ),
        rows=out / "rows.parquet",
        manifest=out / "manifest.json",
    )
    return pq.read_table(out / "rows.parquet")


def with_checkpoint(files, path, tensors):
    """The same files with a checkpoint of other tensors, which is written to `path`."""
    safetensors.torch.save_file(tensors, path)
    return replace(files, checkpoint=path)


def assert_rows_are_of(network, table, name, dataset, images=None):
    """Assert that the rows of one state on a dataset are what the network says of its images.

    Args:
        table: rows of one state, as a data frame.
        name: that of the dataset.
        dataset: its images, labels and label space.
        images: the images that should be scored, by number; all by default.
    """
    if images is None:
        images = np.arange(len(dataset.labels))
    with torch.no_grad():
        class_logits = masked(network(normalised(dataset.images, MEAN, STD)), SPACE).numpy()
    rows = table[table["dataset"] == name]
    assert len(images) > 0
    assert rows["row"].tolist() == list(images)
    for image, scores_of_image in zip(images, rows[SCORES].to_dict("records"), strict=True):
        expected = scores_by_definition(class_logits[image], dataset.labels[image], ())
        assert scores_of_image == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_a_job_writes_a_row_per_image_and_what_it_was_scored_on(
    files, datasets, tmp_path, progress
):
    # when
    rows = job(files, tmp_path / "run")
    # then
    assert progress() == [("evaluating net/set/ft/all/3", 16, 16, "image")]
    table = rows.to_pandas()
    assert table["dataset"].tolist() == ["first"] * 9 + ["second"] * 7
    assert table["alpha"].isna().all()
    for column, of_run in vars(RUN).items():
        assert set(table[column]) == {of_run}
    for name, dataset in datasets.items():
        assert_rows_are_of(files.tuned_network, table, name, dataset)
    assert read_json(tmp_path / "run/manifest.json") == {
        **OF_CPU,
        "evaluation_batch_size": 4,
        "datasets": {
            "first": {"n": 9, "label_space": SPACE.digest},
            "second": {"n": 7, "label_space": SPACE.digest},
        },
        "fit": {"ft": 0.75},
        "trained_on": {str(files.manifest): ["cpu in fp32"]},
        "networks": [{"method": "ft", "alpha": None, "coefficients": {"ft": 1.0}}],
    }


def test_rows_are_stored_in_small_types(files, tmp_path):
    rows = job(files, tmp_path / "run")
    assert rows.column_names == [*ROW, *SCORES]
    types = {name: str(rows.schema.field(name).type) for name in ("row", "seed", *SCORES)}
    assert types == {
        "row": "int32",
        "seed": "int32",
        "prediction": "int16",
        "rank": "int16",
        "log_prob": "halffloat",
        "energy": "halffloat",
        "confidence": "halffloat",
        "margin": "halffloat",
        "brier": "halffloat",
    }


def test_rows_hold_labels_and_ranks_of_as_many_classes_as_a_class_file_may_have():
    # given
    keys = tuple(map(str, range(MOST_CLASSES)))
    outputs = tuple((output,) for output in range(MOST_CLASSES))
    space = LabelSpace(keys, outputs, keys, MOST_CLASSES)
    dataset = stated_dataset(space, labels=[0])
    inputs = images_of(dataset, [0.0] * 3, [1 / 255] * 3)
    logits = np.arange(MOST_CLASSES, dtype=np.float32)[np.newaxis]
    # when
    rows = rows_of_networks(RUN, FINE_TUNED, [Stated(logits)], [dataset], [inputs], 1)
    # then
    assert rows["prediction"].to_pylist() == rows["rank"].to_pylist() == [32_767]


def curve(*alphas):
    """States on the line from the pretrained network (alpha 0) to the fine-tuned one (1)."""
    return [
        NetworkState("curve", alpha, {"pretrained": 1 - alpha, "ft": alpha}) for alpha in alphas
    ]


def test_a_curve_has_the_rows_of_each_alpha(network, files, datasets, tmp_path):
    # given
    middle = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in middle.named_parameters():
            tuned = files.tuned_network.get_parameter(name)
            parameter.copy_((parameter + tuned) / 2)
    network_of_alpha = {0.0: network, 0.5: middle, 1.0: files.tuned_network}
    # when
    rows = job(files, tmp_path / "curve", states=curve(0.0, 0.5, 1.0))
    # then
    table = rows.to_pandas()
    assert len(table) == 3 * (9 + 7)
    assert set(table["method"]) == {"curve"}
    assert set(table["seed"]) == {3}
    for alpha, network_of_state in network_of_alpha.items():
        rows_of_state = table[table["alpha"] == alpha]
        for name, dataset in datasets.items():
            assert_rows_are_of(network_of_state, rows_of_state, name, dataset)


@pytest.fixture
def splits(datasets, tmp_path):
    """Files of the splits of both datasets, by name."""
    return {
        name: split_file(tmp_path / f"{name}.parquet", len(dataset.labels))
        for name, dataset in datasets.items()
    }


def test_a_job_scores_the_test_split(files, datasets, splits, tmp_path):
    table = job(files, tmp_path / "run", splits=splits).to_pandas()
    for name, dataset in datasets.items():
        tested_images = np.array(rows_of("test", len(dataset.labels)))
        assert_rows_are_of(files.tuned_network, table, name, dataset, tested_images)


def test_a_job_scores_the_test_split_within_the_budget(files, datasets, splits, tmp_path):
    # given
    six_of_each = replace(VIEW, budget=6)
    # when
    table = job(files, tmp_path / "whole", view=six_of_each).to_pandas()
    table_of_split = job(files, tmp_path / "test", view=six_of_each, splits=splits).to_pandas()
    # then
    assert table["dataset"].tolist() == ["first"] * 6 + ["second"] * 6
    for name, dataset in datasets.items():
        images_in_budget = table["row"][table["dataset"] == name]
        tested_images = [
            image
            for image in rows_of("test", len(dataset.labels))
            if image in set(images_in_budget)
        ]
        assert_rows_are_of(files.tuned_network, table_of_split, name, dataset, tested_images)


def test_images_of_the_pretraining_proxy_are_not_scored(files, tmp_path):
    # given
    one_image_per_class = replace(VIEW, images_per_class=1)
    proxies = {"first": files.prepared_folders["first"]}
    # when
    rows = job(files, tmp_path / "run", view=one_image_per_class, proxies=proxies)
    # then
    assert rows["dataset"].to_pylist() == ["first"] * 6 + ["second"] * 7


def test_scores_that_a_half_cannot_hold_are_its_largest(files, tmp_path):
    # given
    outputs_of_b = torch.tensor(SPACE.indices[1])
    bias = torch.zeros(1000).index_fill(0, outputs_of_b, 1e5)
    files_of_large = with_checkpoint(files, tmp_path / "large.safetensors", {"fc.bias": bias})
    # when
    table = job(files_of_large, tmp_path / "run").to_pandas()
    # then
    assert set(table["prediction"]) == {1}
    assert set(table["energy"]) == {LARGEST_HALF}
    assert set(table["confidence"]) == {1}
    assert set(table["margin"]) == {LARGEST_HALF, -LARGEST_HALF}
    assert set(table["log_prob"]) == {0, -LARGEST_HALF}


def test_the_same_scores_give_the_same_bytes(files, tmp_path):
    job(files, tmp_path / "one")
    job(files, tmp_path / "other")
    bytes_of_other = (tmp_path / "other/rows.parquet").read_bytes()
    assert (tmp_path / "one/rows.parquet").read_bytes() == bytes_of_other


@pytest.mark.parametrize("not_finite", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_refused_with_run_and_dataset(files, tmp_path, not_finite):
    bias = torch.full((1000,), not_finite)
    broken_files = with_checkpoint(files, tmp_path / "broken.safetensors", {"fc.bias": bias})
    with pytest.raises(PermanentError, match="net/set/ft/all/3 on first.*not finite"):
        job(broken_files, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


# Datasets in parts.

# In batches of 4; the last two are one after the other, and in turn.
NOISE_ENDS_WITH_A_BATCH = ["noise"] * 4 + ["fog"] * 5
NOISE_ENDS_WITHIN_A_BATCH = ["noise"] * 6 + ["fog"] * 3
IN_TURN = ["fog", "noise"] * 4 + ["fog"]


def with_corruptions(files, folder, corruptions):
    """Files of which `first` is the only dataset, and its index has a corruption."""
    shutil.copytree(files.prepared_folders["first"], folder)
    index = pq.read_table(folder / "index.parquet")
    column = pa.array(corruptions).dictionary_encode()
    pq.write_table(index.append_column("corruption", column), folder / "index.parquet")
    return replace(files, prepared_folders={"first": folder})


def test_a_part_that_leaves_images_in_no_part_is_refused(files, tmp_path):
    files_of_first = with_corruptions(files, tmp_path / "first", IN_TURN)
    part = DatasetPart(column="corruption", levels=["fog"])
    with pytest.raises(UserError, match="^datasets.yaml, first, parts: images with .*'noise' are"):
        job(files_of_first, tmp_path / "fog", part=part, other_levels=[])
    assert list((tmp_path / "fog").iterdir()) == []


def job_of_part(files, out, corruption, **choices):
    """Evaluate the images of one corruption.

    Args:
        choices: other arguments of `job`.

    Returns:
        The rows, and the number of images that the manifest states.
    """
    part = DatasetPart(column="corruption", levels=[corruption])
    others = {"noise", "fog"} - {corruption}
    rows = job(files, out / corruption, part=part, other_levels=others, **choices)
    manifest = read_json(out / corruption / "manifest.json")
    return rows, manifest["datasets"]["first"]["n"]


def bytes_of_rows(table, path):
    """The bytes of a table in the order of the rows of one job."""
    ordered = table.unify_dictionaries().combine_chunks()
    ordered = ordered.sort_by([("alpha", "ascending"), ("row", "ascending")])
    pq.write_table(ordered, path, **ENCODING)
    return path.read_bytes()


@pytest.mark.parametrize(
    "corruptions", [NOISE_ENDS_WITH_A_BATCH, NOISE_ENDS_WITHIN_A_BATCH, IN_TURN]
)
def test_the_rows_of_parts_are_together_the_bytes_of_one_job(files, tmp_path, corruptions):
    # given
    files_of_first = with_corruptions(files, tmp_path / "first", corruptions)
    states = curve(0.0, 1.0)
    # when
    rows_of_whole = job(files_of_first, tmp_path / "whole", states=states)
    rows_of_noise, n_noise = job_of_part(files_of_first, tmp_path, "noise", states=states)
    rows_of_fog, n_fog = job_of_part(files_of_first, tmp_path, "fog", states=states)
    # then
    assert n_noise == corruptions.count("noise")
    assert n_fog == corruptions.count("fog")
    assert rows_of_noise.num_rows == len(states) * n_noise
    assert rows_of_fog.num_rows == len(states) * n_fog
    rows_of_parts = pa.concat_tables([rows_of_noise, rows_of_fog])
    bytes_of_parts = bytes_of_rows(rows_of_parts, tmp_path / "together.parquet")
    assert bytes_of_parts == bytes_of_rows(rows_of_whole, tmp_path / "in_order.parquet")


def test_networks_see_the_images_of_a_part_in_the_batches_of_the_whole_dataset(
    files, tmp_path, monkeypatch
):
    # given
    files_of_first = with_corruptions(files, tmp_path / "first", NOISE_ENDS_WITHIN_A_BATCH)
    batches_that_were_read = []
    read_batch = Images.__getitem__

    def noted(inputs, batch):
        batches_that_were_read.append(inputs.rows[batch].tolist())
        return read_batch(inputs, batch)

    monkeypatch.setattr(Images, "__getitem__", noted)
    # when
    job_of_part(files_of_first, tmp_path, "noise")
    job_of_part(files_of_first, tmp_path, "fog")
    # then
    noise = [0, 1, 2, 3]
    shared = [4, 5, 6, 7]
    fog = [8]
    # Each job begins with the first batch, to see whether BatchNorm can be fused.
    batches_of_noise = [noise, noise, shared]
    batches_of_fog = [noise, shared, fog]
    assert batches_that_were_read == batches_of_noise + batches_of_fog


def test_a_part_may_have_none_of_the_images_within_the_budget(files, tmp_path):
    # given
    only_the_last_in_fog = ["noise"] * 8 + ["fog"]
    files_of_first = with_corruptions(files, tmp_path / "first", only_the_last_in_fog)
    three_images = replace(VIEW, budget=3)
    rows_of_whole = job(files_of_first, tmp_path / "whole", view=three_images)
    assert 8 not in rows_of_whole["row"].to_pylist(), "the image in fog is beyond the budget"
    # when
    rows_of_noise, n_noise = job_of_part(files_of_first, tmp_path, "noise", view=three_images)
    rows_of_fog, n_fog = job_of_part(files_of_first, tmp_path, "fog", view=three_images)
    # then
    assert n_noise == 3
    assert n_fog == 0
    assert rows_of_fog.num_rows == 0
    assert rows_of_fog.schema == rows_of_noise.schema
    rows_of_parts = pa.concat_tables([rows_of_noise, rows_of_fog])
    bytes_of_parts = bytes_of_rows(rows_of_parts, tmp_path / "together.parquet")
    assert bytes_of_parts == bytes_of_rows(rows_of_whole, tmp_path / "in_order.parquet")

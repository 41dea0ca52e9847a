"""Rows of evaluation against scores written out by hand."""

import copy
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.config.label_space import LabelSpace
from rib.config.run import Run
from rib.data.dataset_part import DatasetPart
from rib.data.prepared import PreparedDataset
from rib.data.view import DatasetFiles
from rib.evaluation.evaluate import ENCODING, EvaluationOutput, _rows, evaluate, write_rows
from rib.evaluation.recipes import RunNetworks, State
from rib.evaluation.score import _summary, score
from rib.evaluation.settings import EvaluationSettings
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.reporting.bundle import ROWS
from rib.reporting.foreign_parquet import Size, checked_size
from tiny.changed import replace
from tiny.training import (
    CODE,
    COMPUTE,
    CPU,
    FINE_TUNED,
    MEAN,
    SPACE,
    STD,
    VIEW,
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


class Stated(nn.Module):
    """A network that says of the image of brightness i what line i of a table states."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, images):
        return self.table[images[:, 0, 0, 0].round().long()]


def stated_dataset(space, labels):
    """Image i has brightness i; its input, at mean 0 and deviation 1, is i / 255."""
    images = np.tile(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (1, 2, 2, 3))
    index = pa.table({"row": range(len(labels))})
    return PreparedDataset("set", images, np.array(labels), None, index, space)


def scores_of(tables, space, labels, batch_size=2):
    dataset = stated_dataset(space, labels)
    inputs = Inputs(dataset.images, [0.0] * 3, [1 / 255] * 3, CPU)
    progress = Progress(desc="test", total=len(labels), unit="image")
    return score(
        [Stated(table) for table in tables], inputs, dataset, batch_size, progress
    ), progress


class Operators(TorchDispatchMode):
    """Collects the names of all operators that torch calls."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


def test_scoring_needs_no_operator_that_cuda_sorts_for():
    """Its deterministic forms of these sort all indices."""
    scores = torch.randn(5, 7)
    with Operators() as operators:
        _summary(scores, torch.tensor([[0, 3]] * 5))
    assert "gather" in operators.names
    assert not any(
        name.startswith(("scatter", "index_add", "index_put")) for name in operators.names
    )


def test_prediction_confidence_and_margin_of_single_images():
    """Five outputs in three classes, {0, 3}, {1} and {4}.

    Output 2 belongs to none and counts for nothing.
    """
    space = LabelSpace(("a", "b", "c"), ((0, 3), (1,), (4,)), ("a", "b", "c"), 5)
    table = [
        [1.0, 0.0, 9.0, 3.0, 2.0],  # a: 3, b: 0, c: 2
        [1.0, 0.0, 9.0, 3.0, 2.0],
        [2.0, 2.0, 9.0, 1.0, 2.0],  # equal
        [2.0, 2.0, 9.0, 1.0, 2.0],
        [-1.0, 5.0, 0.0, -2.0, 5.0],  # a: -1, b and c: 5
    ]
    (found,), progress = scores_of([table], space, [0, 1, 0, 2, 2])
    assert found["prediction"].tolist() == [0, 0, 0, 0, 1], "the first of equal classes"
    assert found["margin"].tolist() == [1.0, -3.0, 0.0, 0.0, 0.0], (
        "the label's less the best of the others"
    )
    e = np.exp
    wanted = [e(3) / (e(3) + 1 + e(2))] * 2 + [1 / 3] * 2 + [e(5) / (e(-1) + 2 * e(5))]
    assert found["confidence"].tolist() == pytest.approx(wanted, rel=1e-6)
    assert found["rank"].tolist() == [0, 2, 0, 2, 1], (
        "of equal classes, those with a lower index beat it"
    )
    whole = np.log([e(3) + 1 + e(2)] * 2 + [3 * e(2)] * 2 + [e(-1) + 2 * e(5)])
    assert found["energy"].tolist() == pytest.approx(whole, rel=1e-6)
    assert found["log_prob"].tolist() == pytest.approx([3, 0, 2, 2, 5] - whole, rel=1e-5)
    kinds = dict.fromkeys(("prediction", "rank"), torch.int64)
    kinds |= dict.fromkeys(("log_prob", "energy", "confidence", "margin", "brier"), torch.float32)
    assert {name: values.dtype for name, values in found.items()} == kinds
    assert progress.n == 5


def reference(scores, label, also):
    """Results for one image's class logits, from their definitions."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    right = {label, *also}
    energy = np.log(np.exp(scores.astype(np.float64)).sum())
    others = [score for place, score in enumerate(scores) if place not in right]
    return {
        "prediction": order[0],
        "rank": min(order.index(place) for place in right),
        "log_prob": scores[label] - energy,
        "energy": energy,
        "confidence": np.exp(scores[order[0]] - energy),
        "margin": max(scores[place] for place in right) - max(others, default=-np.inf),
        "brier": sum(
            (np.exp(one - energy) - (place == label)) ** 2 for place, one in enumerate(scores)
        ),
    }


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("widest", [0, 1, 3])
def test_scores_equal_the_reference_with_ties_and_several_right_answers(classes, widest):
    rng = np.random.default_rng([classes, widest])
    names = tuple(map(str, range(classes)))
    also = tuple(
        tuple(rng.choice(classes, rng.integers(0, min(widest, classes) + 1), False)) for _ in names
    )
    also = tuple(
        tuple(int(other) for other in own if other != label) for label, own in enumerate(also)
    )
    space = LabelSpace(
        names, tuple((place,) for place in range(classes)), names, classes, also if widest else ()
    )
    labels, table = (
        rng.integers(0, classes, 200),
        rng.integers(-2, 3, (200, classes)).astype(np.float32),
    )
    (found,), _ = scores_of([table], space, labels, 64)
    for place, (scores, label) in enumerate(zip(table, labels, strict=True)):
        wanted = reference(scores, label, also[label] if widest else ())
        assert {name: float(values[place]) for name, values in found.items()} == pytest.approx(
            wanted, rel=1e-5, abs=1e-6
        )
    right = [
        int(one) in (label, *also[label])
        for one, label in zip(found["prediction"], labels, strict=True)
    ]
    assert (found["rank"] == 0).tolist() == right


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_a_logit_that_is_not_finite_shows_in_the_energy_and_nan_is_never_right(odd, place):
    (found,), _ = scores_of(
        [[[odd, 1.0, 0.0], [1.0, odd, 0.0]]],
        LabelSpace((*"abc",), ((0,), (1,), (2,)), (*"abc",), 3),
        [place] * 2,
    )
    assert found["energy"].isnan().all()
    if np.isnan(odd):
        assert (found["rank"] > 0).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_scores_do_not_depend_on_batches_and_each_network_is_scored_by_itself(batch_size):
    rng = np.random.default_rng(0)
    tables, labels = rng.normal(size=(2, 7, 40)).astype(np.float32), rng.integers(0, 3, 7)
    found, _ = scores_of(tables, SPACE, labels, batch_size)
    for table, one in zip(tables, found, strict=True):
        scores = np.stack([table[:, list(row)].max(axis=1) for row in SPACE.indices], axis=1)
        others = [np.delete(line, label).max() for line, label in zip(scores, labels, strict=True)]
        assert one["prediction"].tolist() == scores.argmax(axis=1).tolist()
        margins = scores[np.arange(7), labels] - others
        np.testing.assert_allclose(one["margin"], margins, rtol=1e-5)
        assert ((one["margin"].numpy() > 0) == (scores.argmax(axis=1) == labels)).all()
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(one["confidence"], shares.max(axis=1), rtol=1e-5)


def test_networks_compute_in_the_precision_that_was_chosen_and_scores_in_single(monkeypatch):
    network, dataset = resnet(), random_images(5, 32)
    dataset.index = dataset.rows = None
    inputs = Inputs(dataset.images, MEAN, STD, CPU)

    def margins():
        return score([network], inputs, dataset, 5, Progress(desc="test", total=5, unit="image"))[
            0
        ]["margin"]

    single = margins()
    monkeypatch.setitem(devices._policy, "precision", "bf16")
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        scores = masked(network(inputs[slice(None)]).float(), SPACE)
    own = scores[torch.arange(5), torch.from_numpy(dataset.labels)]
    others = scores.scatter(1, torch.from_numpy(dataset.labels)[:, None], float("-inf")).amax(dim=1)
    assert torch.equal(margins(), own - others) and not torch.equal(margins(), single)


# What a job writes.


@pytest.fixture(scope="module")
def network():
    return resnet()


@pytest.fixture(scope="module")
def sets():
    return {"first": random_images(9, 32, seed=1), "second": random_images(7, 32, seed=2)}


@pytest.fixture(scope="module")
def folders(network, sets, tmp_path_factory):
    top = tmp_path_factory.mktemp("folders")
    tuned = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    changes = {}
    for name in ("fc.weight", "conv1.0.weight"):
        tensor = tuned.get_parameter(name).data
        tensor += 0.2 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        changes[name] = tensor
    safetensors.torch.save_file(changes, top / "ft.safetensors")
    write_json(top / "ft.manifest.json", {"fit": 0.75})
    return {
        "model": model_folder(top / "model", network),
        "datasets": {name: prepared_folder(top / name, part) for name, part in sets.items()},
        "ft": top / "ft.safetensors",
        "ft_manifest": top / "ft.manifest.json",
        "tuned": tuned,
    }


def job(folders, out, *, run=RUN, states=FINE_TUNED, view=VIEW, part=None, **files):
    """Evaluate, and return the rows; `files` gives proxy or split by dataset."""
    out.mkdir(exist_ok=True)
    evaluate(
        run=run,
        networks=RunNetworks(
            model_folder=folders["model"], states=states, checkpoints={"ft": folders["ft"]}
        ),
        manifests=[folders["ft_manifest"]],
        datasets=[
            DatasetFiles(name, folder, **{key: paths.get(name) for key, paths in files.items()})
            for name, folder in folders["datasets"].items()
        ],
        part=part,
        settings=EvaluationSettings(
            view=view,
            evaluation_batch_size=4,
            compute=COMPUTE,
            excludes_proxy=[],
            split=[],
            code=CODE,
        ),
        output=EvaluationOutput(rows=out / "rows.parquet", manifest=out / "manifest.json"),
    )
    return pq.read_table(out / "rows.parquet")


def check(table, dataset, model, part, /, rows=None, **constant):
    """The rows of one state on one dataset are what the network says."""
    rows = np.arange(len(part.labels)) if rows is None else rows
    with torch.no_grad():
        scores = masked(model(normalised(part.images, MEAN, STD)), SPACE).numpy()[rows]
    labels, mine = part.labels[rows], table[table["dataset"] == dataset]
    assert mine["row"].tolist() == list(rows)
    for place, (line, label) in enumerate(zip(scores, labels, strict=True)):
        wanted = reference(line, label, ())
        assert mine[SCORES].iloc[place].to_dict() == pytest.approx(wanted, rel=2e-3, abs=2e-3)
    for name, value in constant.items():
        assert set(mine[name]) == {value}


def test_a_job_writes_a_row_per_image_and_what_it_was_scored_on(folders, sets, tmp_path, progress):
    stored = job(folders, tmp_path / "run")
    assert progress() == [("evaluating net/set/ft/all/3", 16, 16, "image")]
    assert stored.column_names == [*ROW, *SCORES]
    kinds = [str(stored.schema.field(name).type) for name in ("row", "seed", *SCORES)]
    assert kinds == ["int32", "int32", "int16", "int16", *["halffloat"] * 5]
    table = stored.to_pandas()
    assert (
        table["dataset"].tolist() == ["first"] * 9 + ["second"] * 7 and table["alpha"].isna().all()
    )
    for name, part in sets.items():
        check(table, name, folders["tuned"], part, **vars(RUN))
    datasets = {
        name: {"n": len(part.labels), "label_space": SPACE.digest} for name, part in sets.items()
    }
    assert read_json(tmp_path / "run/manifest.json") == {
        "device": "cpu",
        "datasets": datasets,
        "fit": {"ft": 0.75},
    }


def test_a_curve_has_the_rows_of_each_alpha(network, folders, sets, tmp_path):
    states = [State(alpha, {"pretrained": 1 - alpha, "ft": alpha}) for alpha in (0.0, 0.5, 1.0)]
    table = job(
        folders, tmp_path / "curve", run=replace(RUN, method="wise_ft_curve"), states=states
    ).to_pandas()
    middle = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in middle.named_parameters():
            parameter.copy_((parameter + folders["tuned"].get_parameter(name)) / 2)
    assert len(table) == 3 * (9 + 7)
    for alpha, model in zip((0.0, 0.5, 1.0), (network, middle, folders["tuned"]), strict=True):
        for name, part in sets.items():
            check(table[table["alpha"] == alpha], name, model, part, method="wise_ft_curve", seed=3)


def test_a_job_scores_the_test_split_within_the_budget(folders, sets, tmp_path):
    splits = {
        name: split_file(tmp_path / f"{name}.parquet", len(part.labels))
        for name, part in sets.items()
    }
    table = job(folders, tmp_path / "run", split=splits).to_pandas()
    for name, part in sets.items():
        check(table, name, folders["tuned"], part, rows=np.array(rows_of("test", len(part.labels))))
    assert job(folders, tmp_path / "run", view=replace(VIEW, budget=6)).num_rows == 12


def test_images_of_the_pretraining_proxy_are_not_scored(folders, tmp_path):
    proxy = {"first": folders["datasets"]["first"]}
    table = job(
        folders, tmp_path / "run", view=replace(VIEW, images_per_class=1), proxy=proxy
    ).to_pandas()
    assert table["dataset"].tolist() == ["first"] * 6 + ["second"] * 7


def test_scores_that_a_half_cannot_hold_are_its_largest(folders, tmp_path):
    large = {"fc.bias": torch.zeros(1000).index_fill(0, torch.tensor(SPACE.indices[1]), 1e5)}
    safetensors.torch.save_file(large, tmp_path / "large.safetensors")
    table = job({**folders, "ft": tmp_path / "large.safetensors"}, tmp_path / "run").to_pandas()
    assert (
        set(table["prediction"]) == {1}
        and set(table["energy"]) == {65504}
        and set(table["confidence"]) == {1}
    )
    assert set(table["margin"]) == {65504, -65504} and set(table["log_prob"]) == {0, -65504}


def test_the_same_scores_give_the_same_bytes(folders, tmp_path):
    one, other = (
        job(folders, tmp_path / name) and (tmp_path / name / "rows.parquet")
        for name in ("one", "other")
    )
    assert one.read_bytes() == other.read_bytes()


def test_the_rows_of_imagenet_c_need_at_most_40_megabytes(tmp_path):
    """One in 50 of its images, of 1000 classes in the order of an archive; half are right."""
    n, generator = 75_000, torch.Generator().manual_seed(0)
    labels, parts = torch.arange(n) * 1000 // n, []
    for own in labels.split(2500):
        logits = 1.5 * torch.randn(len(own), 1000, generator=generator)
        logits[torch.arange(len(own)), own] += 5 + 3 * torch.randn(len(own), generator=generator)
        parts.append(_summary(logits, own[:, None]))
    scores = {name: torch.cat([part[name] for part in parts]) for name in SCORES}
    assert 0.4 < (scores["rank"] == 0).float().mean() < 0.6
    index = pa.table({"row": pa.array(range(n), pa.int32())})
    table = _rows(
        PreparedDataset("imagenet_c", None, labels.numpy(), None, index, SPACE), scores, RUN, None
    )
    pq.write_table(table, tmp_path / "rows.parquet", **ENCODING)
    assert 50 * (tmp_path / "rows.parquet").stat().st_size < 40e6
    read = pq.read_table(tmp_path / "rows.parquet")
    assert (
        read["row"].to_pylist() == list(range(n))
        and read["rank"].to_numpy().tolist() == scores["rank"].tolist()
    )


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_refused_with_run_and_dataset(folders, tmp_path, odd):
    broken = {"fc.bias": torch.full((1000,), odd)}
    safetensors.torch.save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match="net/set/ft/all/3 on first.*not finite"):
        job({**folders, "ft": tmp_path / "broken.safetensors"}, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


# Datasets in parts.

# In batches of 4; the last two are one after the other, and in turn.
CORRUPTIONS_OF_IMAGES = [
    ["noise"] * 4 + ["fog"] * 5,
    ["noise"] * 6 + ["fog"] * 3,
    ["fog", "noise"] * 4 + ["fog"],
]


def with_corruptions(folders, folder, corruptions):
    """Folders in which `first` is the only dataset, and its index has a corruption."""
    shutil.copytree(folders["datasets"]["first"], folder)
    index = pq.read_table(folder / "index.parquet").append_column(
        "corruption", pa.array(corruptions).dictionary_encode()
    )
    pq.write_table(index, folder / "index.parquet")
    return {**folders, "datasets": {"first": folder}}


def parts_of(folders, out, **settings):
    """Rows of each part, and the number of its images that its manifest states."""
    tables, numbers = [], []
    for level in ("noise", "fog"):
        part = DatasetPart(column="corruption", levels=[level])
        tables.append(job(folders, out / level, part=part, **settings))
        numbers.append(read_json(out / level / "manifest.json")["datasets"]["first"]["n"])
    return tables, numbers


def bytes_of_rows(table, path):
    """The bytes of a table in the order of the rows of one job."""
    ordered = table.unify_dictionaries().combine_chunks()
    ordered = ordered.sort_by([("alpha", "ascending"), ("row", "ascending")])
    pq.write_table(ordered, path, **ENCODING)
    return path.read_bytes()


@pytest.mark.parametrize("corruptions", CORRUPTIONS_OF_IMAGES)
def test_the_rows_of_parts_are_together_the_bytes_of_one_job(folders, tmp_path, corruptions):
    alone = with_corruptions(folders, tmp_path / "first", corruptions)
    curve = [State(alpha, {"pretrained": 1 - alpha, "ft": alpha}) for alpha in (0.0, 1.0)]
    whole = job(alone, tmp_path / "whole", states=curve)
    tables, numbers = parts_of(alone, tmp_path, states=curve)
    assert numbers == [corruptions.count("noise"), corruptions.count("fog")]
    assert [table.num_rows for table in tables] == [2 * number for number in numbers]
    together = bytes_of_rows(pa.concat_tables(tables), tmp_path / "together.parquet")
    assert together == bytes_of_rows(whole, tmp_path / "in_order.parquet")


def test_networks_see_the_images_of_a_part_in_the_batches_of_the_whole_dataset(
    folders, tmp_path, monkeypatch
):
    alone = with_corruptions(folders, tmp_path / "first", CORRUPTIONS_OF_IMAGES[1])
    seen = []
    read = Inputs.__getitem__

    def noted(inputs, batch):
        seen.append(inputs.rows[batch].tolist())
        return read(inputs, batch)

    monkeypatch.setattr(Inputs, "__getitem__", noted)
    parts_of(alone, tmp_path)
    noise, shared, fog = [0, 1, 2, 3], [4, 5, 6, 7], [8]
    # Each job begins with the first batch, to see whether BatchNorm can be fused.
    assert seen == [noise, noise, shared, noise, shared, fog]


def test_a_part_may_have_none_of_the_images_within_the_budget(folders, tmp_path):
    alone = with_corruptions(folders, tmp_path / "first", ["noise"] * 8 + ["fog"])
    view = replace(VIEW, budget=3)
    whole = job(alone, tmp_path / "whole", view=view)
    assert 8 not in whole["row"].to_pylist(), "given: the image in fog is beyond the budget"
    (noise, fog), numbers = parts_of(alone, tmp_path, view=view)
    assert numbers == [3, 0] and fog.num_rows == 0 and fog.schema == noise.schema
    together = bytes_of_rows(pa.concat_tables([noise, fog]), tmp_path / "together.parquet")
    assert together == bytes_of_rows(whole, tmp_path / "in_order.parquet")


def test_a_file_without_rows_has_no_pages_and_passes_the_checks_of_bundles(folders, tmp_path):
    rows = job(folders, tmp_path / "out")
    write_rows(rows.slice(0, 0), tmp_path / "none.parquet")
    assert pq.read_metadata(tmp_path / "none.parquet").num_row_groups == 0
    assert pq.read_schema(tmp_path / "none.parquet") == rows.schema
    size = checked_size(tmp_path / "none.parquet", ROWS, Size(rows=0, size=10**6))
    assert size.rows == 0

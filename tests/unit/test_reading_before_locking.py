"""While a job has a GPU it reads weights, checkpoints and images alone.

Indexes, labels and splits of large datasets take seconds to read, in which the GPU would wait.
"""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from rib.base.files import write_json
from rib.base.plugins import LIBRARY
from rib.data.view import DatasetFiles
from rib.evaluation.compute_fisher import compute_fisher
from rib.evaluation.evaluate import evaluate
from rib.evaluation.evaluation_settings import (
    EvaluationSettings,
    FeatureSettings,
    FisherSettings,
    InversionSettings,
    LabelCheckSettings,
    MergeSettings,
    NetworkSettings,
)
from rib.evaluation.features import compute_epoch_features, compute_features
from rib.evaluation.first_predictions import predict_first_images
from rib.evaluation.inversion import cross_features, invert_run
from rib.evaluation.networks import RunNetworks
from rib.evaluation.select_coefficients import select_coefficients
from rib.models import device as devices
from rib.monitoring.watch import Watch
from rib.schema.algorithm_settings import DEFAULTS_OF_TRAINING
from rib.schema.method_facts import MethodFacts
from rib.schema.part import DatasetPart
from rib.schema.run import Run
from rib.training.finetune import finetune
from rib.training.pretrain import pretrain
from rib.training.training_settings import FineTuningSettings, PretrainingSettings
from tiny.changed import replace
from tiny.models.training import (
    CODE,
    COMPUTE,
    FINE_TUNED,
    MEAN,
    STD,
    TRAINING,
    VIEW,
    model_folder,
    prepared_folder,
    random_images,
    resnet,
    split_file,
)

RUN = Run("net", "set", "ft", "all", 3)
IMAGES = 15
# Weights and checkpoints with the description of their network, and images.
READ_WITH_A_GPU = ("*.safetensors", "model.json", "images.npy")
COMMON = {"view": replace(VIEW, budget=14), "compute": COMPUTE, "code": CODE}
OF_NETWORKS = {**COMMON, "evaluation_batch_size": 4}


@pytest.fixture
def folder(tmp_path):
    """Files of a network, a checkpoint, and two datasets with images of two corruptions."""
    model_folder(tmp_path / "model", resnet())
    safetensors.torch.save_file({"fc.weight": resnet().fc.weight / 2}, tmp_path / "ft.safetensors")
    write_json(tmp_path / "ft.manifest.json", {"fit": 0.75, "device": "cpu", "precision": "fp32"})
    for seed, name in enumerate(("set", "other")):
        prepared = prepared_folder(tmp_path / name, random_images(IMAGES, 32, seed))
        index = pq.read_table(prepared / "index.parquet")
        corruptions = pa.array(["fog", "snow", "fog"] * 5)
        pq.write_table(index.append_column("corruption", corruptions), prepared / "index.parquet")
        split_file(tmp_path / f"split_{name}.parquet", IMAGES)
    return tmp_path


def dataset(folder, name="set", with_split=True):
    split = folder / f"split_{name}.parquet" if with_split else None
    return DatasetFiles(name, folder / name, split=split)


def networks(folder):
    return RunNetworks(folder / "model", FINE_TUNED, {"ft": folder / "ft.safetensors"})


def run_evaluate(folder, out, **part):
    evaluate(
        run=RUN,
        networks=networks(folder),
        checkpoint_manifests=[folder / "ft.manifest.json"],
        datasets=[dataset(folder)],
        settings=EvaluationSettings(**OF_NETWORKS, datasets=["set"], excludes_proxy=[], **part),
        rows=out / "rows.parquet",
        manifest=out / "manifest.json",
    )


def run_evaluate_part(folder, out):
    part = DatasetPart(column="corruption", levels=("fog",))
    run_evaluate(folder, out, part=part, other_levels=("snow",))


def run_features(folder, out):
    compute_features(
        run=RUN,
        networks=networks(folder),
        dataset=dataset(folder),
        settings=FeatureSettings(**OF_NETWORKS, layers="default", limit=4),
        features=out / "features.safetensors",
        index=out / "index.parquet",
        manifest=out / "manifest.json",
    )


def run_epoch_features(folder, out):
    compute_epoch_features(
        run=RUN,
        model_folder=folder / "model",
        snapshots=[folder / "ft.safetensors"],
        dataset=dataset(folder),
        settings=FeatureSettings(**OF_NETWORKS, layers=["stage4"], limit=4),
        features=out / "features.safetensors",
        index=out / "index.parquet",
        manifest=out / "manifest.json",
    )


def run_first_predictions(folder, out):
    settings = LabelCheckSettings(
        datasets=["set", "other"],
        excludes_proxy=[],
        view=COMMON["view"],
        evaluation_batch_size=4,
        compute=COMPUTE,
        labels_checked=[],
        code=CODE,
    )
    predict_first_images(folder / "model", [dataset(folder), dataset(folder, "other")], settings)


def run_fisher(folder, out):
    compute_fisher(
        run=RUN,
        networks=networks(folder),
        dataset=dataset(folder),
        settings=FisherSettings(**OF_NETWORKS, fisher_images=3),
        fisher=out / "fisher.safetensors",
        manifest=out / "manifest.json",
    )


INVERSION = InversionSettings(
    **OF_NETWORKS, images=3, steps=1, layer="stage4", start="noise", lr=0.05, seed=0
)


def run_inversion(folder, out):
    invert_run(
        run=RUN,
        networks=networks(folder),
        dataset=dataset(folder),
        settings=INVERSION,
        inverted=out / "inverted.safetensors",
        index=out / "index.parquet",
        manifest=out / "manifest.json",
    )


def run_cross_features(folder, out):
    inverted = folder / "inverted.safetensors"
    tensors = {"inverted": torch.rand(3, 3, 32, 32), "residual": torch.rand(3)}
    safetensors.torch.save_file(tensors, inverted)
    cross_features(
        run=RUN,
        networks=networks(folder),
        dataset=dataset(folder),
        settings=INVERSION,
        inverted_before=inverted,
        inverted_after=inverted,
        features=out / "features.safetensors",
    )


def run_selection(folder, out):
    algorithm = out / "halves.py"
    algorithm.write_text(
        "def select(parents, score):\n"
        "    halves = {'pretrained': 0.5, 'ft': 0.5}\n"
        "    score(halves)\n"
        "    return halves\n"
    )
    merge = MergeSettings(form="select", algorithm=str(algorithm), settings={"chosen": {}})
    select_coefficients(
        method="chosen",
        model_folder=folder / "model",
        target=dataset(folder),
        checkpoints={"ft": folder / "ft.safetensors"},
        settings=NetworkSettings(**OF_NETWORKS, merge=merge, parents=["ft"]),
        selection=out / "selection.json",
    )


def run_finetune(folder, out):
    watch = Watch(
        model_folder=folder / "model",
        view=COMMON["view"],
        monitored=[dataset(folder, "other")],
        log_file=str(out / "job.log"),
        history=out / "watched.csv",
    )
    finetune(
        run=replace(RUN, size="5"),
        model_folder=folder / "model",
        start={},
        target=dataset(folder),
        reference=dataset(folder, "other"),
        settings=FineTuningSettings(
            **COMMON,
            algorithm=str(LIBRARY / "methods/ft.py"),
            settings={**DEFAULTS_OF_TRAINING, "lr": 0.01},
            facts=MethodFacts(),
            parents=[],
            training=TRAINING,
        ),
        checkpoint=out / "checkpoint.safetensors",
        history=out / "history.csv",
        manifest=out / "manifest.json",
        saved=out / "state.pt",
        rescue=out / "rescued.safetensors",
        watch=watch,
    )
    assert not watch.warned, "the monitored dataset was scored"


def run_pretrain(folder, out):
    renamed = pq.read_table(folder / "other/index.parquet").to_pandas()
    renamed["source_id"] = "other " + renamed["source_id"]
    pq.write_table(pa.Table.from_pandas(renamed), folder / "other/index.parquet")
    entry = {
        "name": "net",
        "pretraining": "here",
        "library": "timm",
        "architecture": "test_resnet",
        "arguments": {},
        "preprocessing": {"mean": MEAN, "std": STD},
        "licence": "none",
        "pretrain": {"dataset": "set", "size": "all", "seed": 0, "lr": 0.01},
    }
    pretrain(
        dataset=dataset(folder, with_split=False),
        test=dataset(folder, "other", with_split=False),
        settings=PretrainingSettings(**COMMON, entry=entry, num_classes=1000, training=TRAINING),
        weights=out / "weights.safetensors",
        description=out / "model.json",
        history=out / "history.csv",
        saved=out / "state.pt",
        rescue=out / "rescued.safetensors",
    )


STAGES = [
    run_evaluate,
    run_evaluate_part,
    run_features,
    run_epoch_features,
    run_first_predictions,
    run_fisher,
    run_inversion,
    run_cross_features,
    run_selection,
    run_finetune,
    run_pretrain,
]


@pytest.mark.parametrize("run_stage", STAGES)
def test_a_job_has_read_all_but_weights_and_images_when_it_takes_a_gpu(
    run_stage, folder, tmp_path_factory, monkeypatch
):
    """The rest of its inputs is gone then."""
    out = tmp_path_factory.mktemp("out")
    start = devices.start
    numbers_of_removed_files = []

    def start_and_remove_inputs(compute):
        device = start(compute)
        kept = {path for pattern in READ_WITH_A_GPU for path in folder.rglob(pattern)}
        removed = {path for path in folder.rglob("*.*") if path.is_file()} - kept
        numbers_of_removed_files.append(len(removed))
        for path in removed:
            path.unlink()
        return device

    monkeypatch.setattr(devices, "start", start_and_remove_inputs)
    run_stage(folder, out)
    assert numbers_of_removed_files == [7], "two datasets, their splits and a manifest"

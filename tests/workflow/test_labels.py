"""A dataset with shifted labels stops a run, also if it is only evaluated."""

import hashlib
import zipfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch

from rib.base.files import read_json
from rib.catalog.label_space import imagenet_wnids
from rib.statistics.label_check import AGREES, OVERRIDDEN
from tiny.projects.family import NETWORKS, SIZE, WNIDS
from tiny.projects.project import Project

pytestmark = pytest.mark.thorough

DATASETS = ["red", "green", "blue", "copy"]
PREPARED = f"results/tiny/prepare/{{}}/{SIZE}px-bicubic-crop1"
CHOICES = ("methods=[ft]",)


VERDICTS = "results/tiny/paper/labels/tiny_cnn/verdicts.json"


def replace_archive(project: Project, file: str, content: bytes) -> None:
    """Write an archive of the family again, with its new digest in the catalogue."""
    path = project.folder / f"mine/archives/{file}"
    old_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(content)
    for entries in ("datasets.yaml", "models.yaml"):
        catalogue = project.folder / f"mine/{entries}"
        new_digest = hashlib.sha256(content).hexdigest()
        catalogue.write_text(catalogue.read_text().replace(old_digest, new_digest))


def shift_labels(project: Project, shifted_dataset: str) -> None:
    """Put the images of each class of a dataset into the folder of the class before it."""
    path = project.folder / f"mine/archives/{shifted_dataset}.zip"
    shifted = project.folder / "shifted.zip"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(shifted, "w") as shifted_archive:
        for name in archive.namelist():
            dataset, wnid, image = name.split("/")
            folder = WNIDS[WNIDS.index(wnid) - 1]
            shifted_archive.writestr(f"{dataset}/{folder}/{image}", archive.read(name))
    replace_archive(project, path.name, shifted.read_bytes())


def let_network_know_the_classes(project: Project, shifted_dataset: str) -> None:
    """Fit the head of tiny_cnn to all images, so that it is right on those that are labelled so.

    Their labels are those of the prepared datasets before one of them was shifted.
    """
    manifests = [f"{PREPARED.format(name)}/manifest.json" for name in DATASETS]
    project.snakemake(*manifests, "--cores", "1", config=CHOICES)
    weights_file = project.folder / "mine/archives/tiny_cnn.safetensors"
    weights = safetensors.torch.load_file(weights_file)
    network = timm.create_model(NETWORKS["tiny_cnn"], num_classes=1000).eval()
    network.load_state_dict(weights)
    images = []
    labels = []
    for name in DATASETS:
        folder = project.folder / PREPARED.format(name)
        images.append(np.load(folder / "images.npy"))
        stated_labels = labels_of(folder)
        is_shifted = name == shifted_dataset
        labels.append((stated_labels + 1) % len(WNIDS) if is_shifted else stated_labels)
    pixels = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        features = network.forward_features((pixels - 0.5) / 0.5)
        features = network.forward_head(features, pre_logits=True).double().numpy()
    wanted_logits = np.eye(len(WNIDS))[np.concatenate(labels)]
    head = np.linalg.lstsq(features, wanted_logits, rcond=1e-6)[0]
    outputs = [imagenet_wnids().index(wnid) for wnid in WNIDS]
    weights["classifier.weight"][outputs] = torch.from_numpy(head.T).float()
    weights["classifier.bias"][:] = 0
    replace_archive(project, weights_file.name, safetensors.torch.save(weights))


def labels_of(folder):
    """Labels of a prepared dataset's images, (n,)."""
    return pq.read_table(folder / "index.parquet", columns=["label"])["label"].to_numpy()


@pytest.mark.parametrize("dataset", ["red", "blue"], ids=["target", "evaluated only"])
def test_shifted_labels_stop_a_run_before_fine_tuning_in_a_sentence(project, dataset):
    # given: a network that knows the classes, and a dataset whose labels are one too low
    # A training from the fitted head diverges at the usual rate.
    project.edit("workflow/catalog/methods.yaml", "{lr: 0.001}", "{lr: 1.0e-7}")
    shift_labels(project, dataset)
    let_network_know_the_classes(project, dataset)
    # when
    printed = project.snakemake("tables", "--cores", "1", config=CHOICES, check=False)
    # then: nothing is trained or tabulated, and a sentence says why
    *_, sentence = [line for line in printed.splitlines() if "its labels seem to be wrong" in line]
    for words in (dataset, "tiny_cnn", "one too low", "80.0%", "labels_checked: true"):
        assert words in sentence
    assert "Traceback (most" not in printed
    for result in ("results/tiny/paper/finetune", "reports/tiny/tables/ri.csv", VERDICTS):
        assert not (project.folder / result).exists()

    # when: somebody has looked at the labels
    label = f"label: {dataset.title()}"
    project.edit("mine/datasets.yaml", label, f"{label}\n  labels_checked: true")
    project.snakemake("tables", "--cores", "1", config=CHOICES)
    # then: the run goes on to its end, and the record tells
    verdicts = read_json(project.folder / VERDICTS)["datasets"]
    assert verdicts.keys() == {*DATASETS}
    for name, verdict in verdicts.items():
        expected = (OVERRIDDEN, "one_too_low") if name == dataset else (AGREES, None)
        assert (verdict["verdict"], verdict["better_mapping"]) == expected
    table = pd.read_csv(project.folder / "reports/tiny/tables/labels.csv").set_index("dataset")
    assert table["verdict"].to_dict() == {
        name: verdict["verdict"] for name, verdict in verdicts.items()
    }

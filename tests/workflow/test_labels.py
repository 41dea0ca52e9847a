"""A dataset with shifted labels stops a run."""

import hashlib
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch

from rib.base.files import read_json
from rib.config.label_space import imagenet_wnids
from rib.statistics.label_check import AGREES, OVERRIDDEN
from tiny.projects.family import NETWORKS, SIZE, WNIDS
from tiny.projects.project import Project, methods

pytestmark = pytest.mark.thorough

DATASETS = ["red", "green", "blue", "copy"]
PREPARED = f"results/tiny/prepare/{{}}/{SIZE}px-bicubic-crop1"
CHOICES = ("methods=[ft]",)


def verdict_of(target: str) -> str:
    """File of the verdict on a target's labels."""
    return f"results/tiny/paper/labels/tiny_cnn/{target}.json"


def replace_archive(project: Project, file: str, content: bytes) -> None:
    """Write an archive of the family again, with its new digest in the catalogue."""
    path = project.folder / f"mine/archives/{file}"
    old_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(content)
    for entries in ("datasets.yaml", "models.yaml"):
        catalogue = project.folder / f"mine/{entries}"
        new_digest = hashlib.sha256(content).hexdigest()
        catalogue.write_text(catalogue.read_text().replace(old_digest, new_digest))


def shift_labels_of_red(project: Project) -> None:
    """Put the images of each class into the folder of the class before it."""
    path = project.folder / "mine/archives/red.zip"
    shifted = project.folder / "shifted.zip"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(shifted, "w") as shifted_archive:
        for name in archive.namelist():
            dataset, wnid, image = name.split("/")
            folder = WNIDS[WNIDS.index(wnid) - 1]
            shifted_archive.writestr(f"{dataset}/{folder}/{image}", archive.read(name))
    replace_archive(project, "red.zip", shifted.read_bytes())


def let_network_know_the_classes(project: Project) -> None:
    """Fit the head of tiny_cnn to all images, so that it is right on those that are labelled so.

    Their labels are those of the prepared datasets, and of red the ones before they were shifted.
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
        labels.append((stated_labels + 1) % len(WNIDS) if name == "red" else stated_labels)
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


def test_shifted_labels_stop_a_run_before_fine_tuning_in_a_sentence(project):
    # given: a network that knows the classes, and a dataset whose labels are one too low
    shift_labels_of_red(project)
    let_network_know_the_classes(project)
    # when
    printed = project.snakemake("tables", "--cores", "1", config=CHOICES, check=False)
    # then: nothing is trained on it, and a sentence says why
    *_, sentence = [line for line in printed.splitlines() if "its labels seem to be wrong" in line]
    for words in ("red", "tiny_cnn", "one too low", "80.0%", "labels_checked: true"):
        assert words in sentence
    assert "Traceback (most" not in printed
    assert not (project.folder / "results/tiny/paper/finetune/tiny_cnn/red").exists()
    assert not (project.folder / verdict_of("red")).exists()

    # when: somebody has looked at the labels
    project.edit("mine/datasets.yaml", "label: Red", "label: Red\n  labels_checked: true")
    verdicts = [verdict_of(target) for target in ("red", "green")]
    project.snakemake(*verdicts, "--cores", "1", config=CHOICES)
    # then: the run goes on, and the record tells
    red, green = (read_json(project.folder / verdict) for verdict in verdicts)
    assert (red["verdict"], red["better_mapping"]) == (OVERRIDDEN, "one_too_low")
    assert (green["verdict"], green["better_mapping"]) == (AGREES, None)
    assert methods(project.listed(config=CHOICES), "finetune") == {"ft"}

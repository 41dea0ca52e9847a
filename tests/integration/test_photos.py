"""Labels and preprocessing of the photos family, wherever the photos are.

RIB_PHOTOS names the folder with photos.tar (docs/photos.md). EfficientNet-Lite0 is right on 895 of
the 1,000 photos by timm's own transform at 224 pixels; the workflow must agree.
"""

import csv
import io
import os
import re
import tarfile
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from tiny.projects.project import Project, copy_project, rows_of

FOLDER = os.environ.get("RIB_PHOTOS")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(FOLDER is None, reason="RIB_PHOTOS names no folder with photos.tar"),
]
ROWS = r"output: (results/\S*/none/pretrained/\S*[.]parquet)"
RIGHT = 895


def test_as_many_answers_are_right_as_by_timms_own_loop(tmp_path):
    # given: predictions of the workflow
    project = Project(copy_project(tmp_path / "project"), family="photos")
    config = (
        f"archives={FOLDER}",
        "image_size=224",
        "datasets=[photos_plain,photos_edges,photos_drawing]",
        "targets=[photos_edges]",
    )
    path = re.search(ROWS, project.listed(config=config))[1]
    project.snakemake("--cores", "2", path, config=config)
    rows = rows_of(project.folder / path)
    rows = rows[rows["dataset"] == "photos_plain"]
    # when: the same network classifies the files themselves
    by_timm = right_by_timm(project.folder / "results/photos/models/efficientnet_lite0")
    # then
    assert (rows["rank"] == 0).sum() == RIGHT
    assert sum(by_timm.values()) == RIGHT
    right = dict(zip(rows["source_id"], rows["rank"] == 0, strict=True))
    different = [name for name in by_timm if by_timm[name] != right[f"photos/{name}"]]
    assert not different


def right_by_timm(model_folder):
    """Whether each photo's answer is right, by its id, in timm's own transform."""
    network = timm.create_model("tf_efficientnet_lite0")
    weights = safetensors.torch.load_file(model_folder / "weights.safetensors")
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    network.eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    right = {}
    with tarfile.open(Path(FOLDER) / "photos.tar") as archive:
        text = archive.extractfile("dataset/images.csv").read().decode()
        for line in csv.DictReader(io.StringIO(text)):
            name = line["ImageId"]
            encoded = archive.extractfile(f"dataset/images/{name}.png").read()
            picture = transform(Image.open(io.BytesIO(encoded)).convert("RGB"))
            with torch.inference_mode():
                answer = network(picture[None]).argmax().item()
            right[name] = answer == int(line["TrueLabel"]) - 1
    return right

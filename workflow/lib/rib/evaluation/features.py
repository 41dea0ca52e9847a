"""Features of a run on a dataset: one vector per image and layer.

The layers are the same for all architectures: `stage1` to `stage4`, the output after each quarter of the network's
depth, and `pre_logits`, the input of the head. In a hierarchical network the quarters are the last four stages in timm's
feature_info, mostly of stride 4, 8, 16 and 32. A plain network of B blocks, such as a ViT, is cut after blocks B/4, B/2,
3B/4 and B, rounded up, as in Li et al. 2021 (arXiv 2111.11429), which uses a ViT as the backbone in place of a CNN. A
stage's output is averaged over positions without class and register tokens, so that CNNs and ViTs are comparable.
`pre_logits` is pooled by the network itself (in most ViTs: the normalised class token).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress
from rib.data.prepared import PreparedDataset
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.network import OpenClipClassifier
from rib.models.state import network_in_state

STAGES = 4
PRE_LOGITS = "pre_logits"
DEFAULT = "default"
INDEX_COLUMNS = ["row", "image_id", "label", "source_id", "object_id"]


def compute_features(
    *, source: RunOnDataset, layers: str | Sequence[str], limit: int, features: Path, index: Path, manifest: Path
) -> None:
    """Compute and store features of a run on a dataset.

    Raises a UserError if the run has several states, the network lacks a layer, or a feature is not finite.

    Args:
        layers: `default` for all, or a list of names.
        limit: maximum number of images; a larger dataset is cut in the balanced order.
        features: written as .safetensors: (n, d) float32 by layer, rows in the order of the dataset's index.
        index: written as Parquet: row, image_id, label, source_id and object_id of these images, in the same order.
        manifest: written as JSON: the device, n, and d by layer.
    """
    weights = source.weights
    dataset, inputs = _inputs(source, limit)
    model = network_in_state(source.model_folder, weights, source.checkpoints, inputs)
    found = features_of(model, inputs, source.batch_size, f"features of {source}")
    chosen = found if layers == DEFAULT else layers
    if missing := [name for name in chosen if name not in found]:
        raise UserError(
            f"config, representations.layers: {source.run.model} has no '{missing[0]}'; choose from {', '.join(found)}."
        )
    _store(source, {name: found[name] for name in chosen}, inputs, features, manifest)
    pq.write_table(dataset.index.select(INDEX_COLUMNS), index)


def compute_epoch_features(
    *, source: RunOnDataset, snapshots: Sequence[Path], limit: int, features: Path, index: Path, manifest: Path
) -> None:
    """Compute and store the head's input at several times in the training of a run.

    The snapshots are written by rib.training.finetune. The features, written as .safetensors, are (n, d) float32 by
    snapshot, `snapshot1` first; other arguments and errors are those of `compute_features`.
    """
    dataset, inputs = _inputs(source, limit)
    found, method = {}, source.run.method
    for number, path in enumerate(snapshots, start=1):
        model = network_in_state(source.model_folder, {method: 1.0}, {method: path}, inputs)
        name = f"snapshot{number}"
        found[name] = features_of(model, inputs, source.batch_size, f"features of {source}, {name}")[PRE_LOGITS]
    _store(source, found, inputs, features, manifest)
    pq.write_table(dataset.index.select(INDEX_COLUMNS), index)


def _inputs(source: RunOnDataset, limit: int) -> tuple[PreparedDataset, Inputs]:
    device, dataset = devices.start(source.compute), source.images(limit)
    return dataset, Inputs.of(dataset, source.preprocessing, device)


def _store(source: RunOnDataset, found: dict[str, Tensor], inputs: Inputs, features: Path, manifest: Path) -> None:
    for name, tensor in found.items():
        source.refuse_infinite(f"a feature of '{name}'", tensor)
    safetensors.torch.save_file(found, features)
    sizes = {name: tensor.shape[1] for name, tensor in found.items()}
    write_json(manifest, {"device": inputs.device.type, "n": len(inputs), "layers": sizes})


@torch.inference_mode()
def features_of(model: nn.Module, inputs: Inputs, batch_size: int, what: str) -> dict[str, Tensor]:
    """Features of all images by layer: (n, d) float32 on the CPU; `what` labels the progress bar."""
    parts = []
    for start in Progress(range(0, len(inputs), batch_size), desc=what, unit="batch"):
        with devices.autocast(inputs.device):
            found = layers_of(model, inputs[slice(start, start + batch_size)])
        parts.append({name: tensor.float().cpu() for name, tensor in found.items()})
    return {name: torch.cat([found[name] for found in parts]) for name in parts[0]}


def layers_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Features (N, d) of normalised images (N, 3, H, W) by layer, in order; a UserError if the library gives none."""
    if hasattr(model, "prompt"):  # a trained padding prompt is part of the run
        images, model = model.prompt(images), model.network
    try:
        places = _places(model)
        stages, features = _intermediates(model, images, sorted(set(places)))
    except AttributeError as error:
        raise UserError(f"{type(model).__name__} has no stages that its library supports ({error}).") from error
    outputs = dict(zip(sorted(set(places)), stages, strict=True))
    found = {f"stage{number}": outputs[place].mean(dim=(2, 3)) for number, place in enumerate(places, start=1)}
    return {**found, PRE_LOGITS: model.forward_head(features, pre_logits=True).flatten(1)}


def _places(model: nn.Module) -> list[int]:
    """Library indices of the outputs after each quarter of the depth."""
    if isinstance(model, OpenClipClassifier):
        model = getattr(model.visual, "trunk", model.visual)  # a tower from timm, or open_clip's own
    if hasattr(model, "feature_info"):
        strides = [entry["reduction"] for entry in model.feature_info]
    else:  # open_clip's ViT, or the stem and four stages of its ResNet
        strides = [1] * len(model.transformer.resblocks) if hasattr(model, "transformer") else [2, 4, 8, 16, 32]
    blocks = len(strides)
    if len(set(strides)) > 1:
        return list(range(max(0, blocks - STAGES), blocks))
    return [math.ceil(quarter * blocks / STAGES) - 1 for quarter in range(1, STAGES + 1)]


def _intermediates(model: nn.Module, images: Tensor, places: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Outputs at the given places, (N, d, h, w) each, and the output of `forward_features`."""
    if isinstance(model, OpenClipClassifier):
        found = model.visual.forward_intermediates(images, indices=list(places))
        return found["image_intermediates"], F.normalize(found["image_features"], dim=-1)
    features, stages = model.forward_intermediates(images, indices=list(places))
    return stages, features

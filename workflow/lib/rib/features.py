"""Features of a run on a dataset: a vector per image and layer.

The layers are the same for all architectures: `stage1` to `stage4`, the output after each quarter of the network's
depth, and `pre_logits`, what the head reads. A hierarchical network's quarters are its stages of stride 4, 8, 16 and 32,
as timm's feature_info lists them; a plain one of B blocks, such as a ViT, is cut after blocks B/4, B/2, 3B/4 and B,
rounded up, as Li et al. 2021 (arXiv 2111.11429) do to put a ViT in a CNN's place. A stage's output is averaged
over positions, class tokens left out, so that a feature says the same of a CNN and a ViT; `pre_logits` is pooled as the
network pools it (in most ViTs: the normalised class token).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST, opened, part, subset
from rib.io import Progress, UserError, read_json, write_json
from rib.merge import State
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.pretrained import OpenClipClassifier
from rib.models.state import network_in_state

STAGES = 4
PRE_LOGITS = "pre_logits"
DEFAULT = "default"
EXAMPLE = 4  # images with which folding is checked


def compute_features(
    *,
    model_folder: Path,
    states: Sequence[State],
    checkpoints: Mapping[str, Path],
    dataset_folder: Path,
    apart: Path | None,
    images: Mapping,
    split: Path | None,
    what: Mapping[str, str],
    layers: str | Sequence[str],
    limit: int,
    batch_size: int,
    compute: Mapping,
    features: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Pass a dataset through a run's network and keep what its layers say.

    Args:
        model_folder: what a models job wrote.
        states: the run's one state (see rib.merge.run_states).
        checkpoints: file of each fine-tuned method.
        dataset_folder: what a prepare job wrote.
        apart: folder of the dataset of which a part stands for pretraining, where this one shares its sources.
        images: how datasets are seen (rib.data.splits.opened).
        split: of the dataset (protocol `held_out`), of which the test part is taken, or None for all images.
        what: model, target, method and dataset.
        layers: `default` for all, or names of some.
        limit: images at most; of a larger dataset the first in the class-balanced order.
        batch_size: images per forward pass.
        compute: device, threads (see rib.models.device.start).
        features: written as .safetensors: (n, d) float32 by layer, rows in the order of the dataset's index.
        index: written as Parquet: the rows of the dataset's index that the features are of (row, image_id, label,
            source_id, object_id), in the same order.
        manifest: written as JSON: the device, n, and d by layer.

    Raises:
        UserError: a run with several states, a layer that the network lacks, or a feature that is not finite.
    """
    title = "/".join(what.values())
    if len(states) > 1:
        raise UserError(f"features of {title}: a curve has several states; ask for one of its ends instead.")
    device = devices.start(**compute)
    dataset, inputs = _inputs(model_folder, dataset_folder, what["dataset"], images, apart, split, limit, device)
    model = network_in_state(model_folder, states[0][1], checkpoints, inputs[slice(EXAMPLE)], device)
    found = features_of(model, inputs, batch_size, f"features of {title}")
    if missing := [] if layers == DEFAULT else [name for name in layers if name not in found]:
        raise UserError(
            f"config, representations.layers: {what['model']} has no '{missing[0]}', but {', '.join(found)}; name some of those."
        )
    found = {name: tensor for name, tensor in found.items() if layers == DEFAULT or name in layers}
    _store(found, dataset, device, title, features, index, manifest)


def compute_epoch_features(
    *,
    model_folder: Path,
    snapshots: Sequence[Path],
    dataset_folder: Path,
    apart: Path | None,
    images: Mapping,
    split: Path | None,
    what: Mapping[str, str],
    limit: int,
    batch_size: int,
    compute: Mapping,
    features: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Pass a dataset through a run's network as it was after each epoch, and keep what its head reads.

    Args:
        snapshots: what rib.finetune wrote after each epoch.
        features: written as .safetensors: (n, d) float32 by epoch, `epoch1` first.

    The others are those of `compute_features`.

    Raises:
        UserError: a feature is not finite.
    """
    title, method = "/".join(what.values()), what["method"]
    device = devices.start(**compute)
    dataset, inputs = _inputs(model_folder, dataset_folder, what["dataset"], images, apart, split, limit, device)
    found = {}
    for epoch, path in enumerate(snapshots, start=1):
        model = network_in_state(model_folder, {method: 1.0}, {method: path}, inputs[slice(EXAMPLE)], device)
        name = f"epoch{epoch}"
        found[name] = features_of(model, inputs, batch_size, f"features of {title}, {name}")[PRE_LOGITS]
    _store(found, dataset, device, title, features, index, manifest)


def _inputs(
    model_folder: Path,
    dataset_folder: Path,
    name: str,
    images: Mapping,
    apart: Path | None,
    split: Path | None,
    limit: int,
    device: torch.device,
) -> tuple[PreparedDataset, Inputs]:
    """The images whose features are taken: at most `limit`, of protocol held_out's test part."""
    dataset = first_images(part(opened(dataset_folder, name, images, apart), TEST, split), limit)
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    return dataset, Inputs(dataset.images, preprocessing["mean"], preprocessing["std"], device, dataset.rows)


def _store(
    found: Mapping[str, Tensor],
    dataset: PreparedDataset,
    device: torch.device,
    title: str,
    features: Path,
    index: Path,
    manifest: Path,
) -> None:
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise UserError(f"features of {title}: one of '{name}' is not finite; don't use these weights.")
    safetensors.torch.save_file(dict(found), features)
    pq.write_table(dataset.index.select(["row", "image_id", "label", "source_id", "object_id"]), index)
    sizes = {name: tensor.shape[1] for name, tensor in found.items()}
    write_json(manifest, {"device": device.type, "n": len(dataset.labels), "layers": sizes})


def first_images(dataset: PreparedDataset, limit: int) -> PreparedDataset:
    """A dataset, or of a larger one its first `limit` images in the class-balanced order; the order of rows is kept."""
    return dataset if len(dataset.labels) <= limit else subset(dataset, str(limit))


@torch.inference_mode()
def features_of(model: nn.Module, inputs: Inputs, batch_size: int, what: str) -> dict[str, Tensor]:
    """Features of all images in order, by layer: (n, d) float32 on the CPU; `what` names it in the progress."""
    parts = []
    for start in Progress(range(0, len(inputs), batch_size), desc=what, unit="batch"):
        with devices.autocast(inputs.device):
            found = layers_of(model, inputs[slice(start, start + batch_size)])
        parts.append({name: tensor.float().cpu() for name, tensor in found.items()})
    return {name: torch.cat([found[name] for found in parts]) for name in parts[0]}


def layers_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Features of a batch by layer, from input to head: (N, d) each.

    Args:
        model: in evaluation mode, from rib.models.checkpoint.apply.
        images: (N, 3, H, W), normalised.

    Raises:
        UserError: the library can't tell the network's intermediate outputs.
    """
    if hasattr(model, "frame"):  # a trained frame around the input is part of what the run does to an image
        images, model = model.frame(images), model.network
    try:
        places = _places(model)
        stages, features = _intermediates(model, images, sorted(set(places)))
    except AttributeError as error:
        raise UserError(f"{type(model).__name__} has no stages that its library could tell ({error}).") from error
    outputs = dict(zip(sorted(set(places)), stages, strict=True))
    found = {f"stage{number}": outputs[place].mean(dim=(2, 3)) for number, place in enumerate(places, start=1)}
    return {**found, PRE_LOGITS: model.forward_head(features, pre_logits=True).flatten(1)}


def _places(model: nn.Module) -> list[int]:
    """Which of the outputs that the library counts are after each quarter of the depth."""
    if isinstance(model, OpenClipClassifier):
        tower = model.visual
        if hasattr(tower, "transformer"):
            strides = [1] * len(tower.transformer.resblocks)
        else:  # a ResNet's stem and four stages, or a tower that timm built
            strides = [2, 4, 8, 16, 32] if hasattr(tower, "layer4") else _strides(tower.trunk)
    else:
        strides = _strides(model)
    blocks = len(strides)
    if len(set(strides)) > 1:
        return list(range(max(0, blocks - STAGES), blocks))
    return [math.ceil(quarter * blocks / STAGES) - 1 for quarter in range(1, STAGES + 1)]


def _strides(model: nn.Module) -> list[int]:
    return [entry["reduction"] for entry in model.feature_info]


def _intermediates(model: nn.Module, images: Tensor, places: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Outputs at some places, (N, d, h, w) each, and what `forward_features` returns."""
    if isinstance(model, OpenClipClassifier):
        found = model.visual.forward_intermediates(images, indices=list(places))
        return found["image_intermediates"], F.normalize(found["image_features"], dim=-1)
    features, stages = model.forward_intermediates(images, indices=list(places))
    return stages, features

"""Features of a run on a dataset: one vector per image and layer; rib.models.layers says which layers there are."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress
from rib.data.prepared import PreparedDataset
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models import device as devices
from rib.models.inputs import Inputs
from rib.models.layers import PRE_LOGITS, layers_of
from rib.models.state import network_in_state

DEFAULT = "default"
INDEX_COLUMNS = ["row", "image_id", "label", "source_id", "object_id"]


def compute_features(
    *,
    source: RunOnDataset,
    layers: str | Sequence[str],
    limit: int,
    features: Path,
    index: Path,
    manifest: Path,
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
    pq.write_table(dataset.joined_index.select(INDEX_COLUMNS), index)


def compute_epoch_features(
    *,
    source: RunOnDataset,
    snapshots: Sequence[Path],
    limit: int,
    features: Path,
    index: Path,
    manifest: Path,
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
        found[name] = features_of(
            model, inputs, source.batch_size, f"features of {source}, {name}"
        )[PRE_LOGITS]
    _store(source, found, inputs, features, manifest)
    pq.write_table(dataset.joined_index.select(INDEX_COLUMNS), index)


def _inputs(source: RunOnDataset, limit: int) -> tuple[PreparedDataset, Inputs]:
    device, dataset = devices.start(source.compute), source.images(limit)
    return dataset, Inputs.of(dataset, source.preprocessing, device)


def _store(
    source: RunOnDataset, found: dict[str, Tensor], inputs: Inputs, features: Path, manifest: Path
) -> None:
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

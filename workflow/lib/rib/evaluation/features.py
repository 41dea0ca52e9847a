"""Features of a run on a dataset: one vector per image and layer.

rib.models.layers says which layers there are.
"""

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
from rib.models.images import Images, slices
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

    Args:
        layers: `default` for all, or names.
        limit: maximum number of images; a larger dataset is cut in the balanced order.
        features: written as .safetensors: (n, d) float32 by layer, rows in the order of the
            dataset's index.
        index: written as Parquet: row, image_id, label, source_id and object_id of these images,
            in the same order.
        manifest: written as JSON: the device, n, and d by layer.

    Raises:
        UserError: the run has several states, the network lacks a layer, or a feature is not
            finite.
    """
    weights = source.weights
    dataset, inputs = _inputs(source, limit)
    network = network_in_state(source.model_folder, weights, source.checkpoints, inputs)
    features_of_layers = features_of(
        network, inputs, source.evaluation_batch_size, f"features of {source}"
    )
    if layers != DEFAULT:
        for name in layers:
            if name not in features_of_layers:
                raise UserError(
                    f"config, representations.layers: {source.run.model} has no '{name}'; "
                    f"choose from {', '.join(features_of_layers)}."
                )
        features_of_layers = {name: features_of_layers[name] for name in layers}
    _store(source, features_of_layers, inputs, features, manifest)
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

    Other arguments and errors are those of `compute_features`.

    Args:
        snapshots: checkpoints, written by rib.training.finetune.
        features: written as .safetensors: (n, d) float32 by snapshot, `snapshot1` first.
    """
    dataset, inputs = _inputs(source, limit)
    method = source.run.method
    features_of_snapshots = {}
    for number, path in enumerate(snapshots, start=1):
        name = f"snapshot{number}"
        network = network_in_state(source.model_folder, {method: 1.0}, {method: path}, inputs)
        features_of_layers = features_of(
            network, inputs, source.evaluation_batch_size, f"features of {source}, {name}"
        )
        features_of_snapshots[name] = features_of_layers[PRE_LOGITS]
    _store(source, features_of_snapshots, inputs, features, manifest)
    pq.write_table(dataset.joined_index.select(INDEX_COLUMNS), index)


def _inputs(source: RunOnDataset, limit: int) -> tuple[PreparedDataset, Images]:
    """The images of the dataset, at most `limit`, also as inputs of the network."""
    device = devices.start(source.compute)
    dataset = source.images(limit)
    return dataset, Images(dataset, source.preprocessing, device)


def _store(
    source: RunOnDataset,
    features_by_name: dict[str, Tensor],
    inputs: Images,
    features: Path,
    manifest: Path,
) -> None:
    """Write features (n, d) and their manifest; a UserError if one is not finite."""
    for name, tensor in features_by_name.items():
        source.refuse_infinite(f"a feature of '{name}'", tensor)
    safetensors.torch.save_file(features_by_name, features)
    sizes = {name: tensor.shape[1] for name, tensor in features_by_name.items()}
    write_json(manifest, {"device": inputs.device.type, "n": len(inputs), "layers": sizes})


@torch.inference_mode()
def features_of(
    model: nn.Module, inputs: Images, evaluation_batch_size: int, label: str
) -> dict[str, Tensor]:
    """Features of all images by layer (`stage1`, ...): (n, d) float32 on the CPU.

    `label` is that of the progress bar.
    """
    features_of_batches = []
    batches = slices(len(inputs), evaluation_batch_size)
    inputs.expect(batches)
    for batch in Progress(batches, desc=label, unit="batch"):
        with devices.autocast(inputs.device):
            features_of_layers = layers_of(model, inputs[batch])
        features_of_batches.append(
            {name: tensor.float().cpu() for name, tensor in features_of_layers.items()}
        )
    features_of_images = {}
    for layer in features_of_batches[0]:
        features_of_images[layer] = torch.cat([features[layer] for features in features_of_batches])
    return features_of_images

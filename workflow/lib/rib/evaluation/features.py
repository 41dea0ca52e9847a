"""Features of a run on a dataset: a vector per image and layer of rib.models.layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import Progress
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.evaluation_settings import FeatureSettings
from rib.evaluation.finite import refuse_infinite
from rib.evaluation.networks import RunNetworks, mixture_of_run
from rib.grid.evaluation_batches import images_per_pass
from rib.models import device as devices
from rib.models.images import Images, slices
from rib.models.layers import layers_of
from rib.models.state import network_in_state
from rib.schema.run import Run

DEFAULT = "default"
INDEX_COLUMNS = ["row", "image_id", "label", "source_id", "object_id"]


def compute_features(
    *,
    run: Run,
    networks: RunNetworks,
    dataset: DatasetFiles,
    settings: FeatureSettings,
    features: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Compute and store features of a run on a dataset.

    Args:
        dataset: its test split if it is split; at most `settings.limit` images, class-balanced.
        features: .safetensors file to write: {"stage1": (n, d) float32, ...}, rows in the order of
            the dataset's index.
        index: Parquet file to write: row, image_id, label, source_id and object_id of these images,
            in the same order.
        manifest: JSON file to write: the device, the images of a pass, n, and d of each layer,
            {"stage1": 256, ...}.

    Raises:
        UserError: the run has several networks, its network lacks a layer, or a feature is not
            finite.
    """
    mixture = mixture_of_run(run, networks.states)
    images = first_images(load_dataset(dataset, settings.view, TEST), settings.limit)
    index_of_images = images.joined_index.select(INDEX_COLUMNS)
    preprocessing = networks.preprocessing
    device = devices.start(settings.compute)
    inputs = Images(images, preprocessing, device)
    network = network_in_state(networks.model_folder, mixture, networks.checkpoints, inputs)
    batch_size = images_per_pass(settings.evaluation_batch_size, device.type)
    label = f"features of {run} on {dataset.name}"
    features_of_layers = features_of(network, inputs, batch_size, label)
    if settings.layers != DEFAULT:
        for name in settings.layers:
            if name not in features_of_layers:
                raise UserError(
                    f"config, representations.layers: {run.model} has no '{name}'; "
                    f"choose from {', '.join(features_of_layers)}."
                )
        features_of_layers = {name: features_of_layers[name] for name in settings.layers}
    _store(features_of_layers, label, inputs, batch_size, features, manifest)
    pq.write_table(index_of_images, index)


def compute_epoch_features(
    *,
    run: Run,
    model_folder: Path,
    snapshots: Sequence[Path],
    dataset: DatasetFiles,
    settings: FeatureSettings,
    features: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Compute and store features of one layer at several times in the training of a run.

    Args:
        snapshots: checkpoints in the order of training.
        dataset: its test split if it is split; at most `settings.limit` images, class-balanced.
        settings: with one layer.
        features: .safetensors file to write: {"snapshot1": (n, d) float32, ...}.
        index: Parquet file to write: row, image_id, label, source_id and object_id of these images,
            in the same order.
        manifest: JSON file to write: the device, the images of a pass, n, and d of each snapshot.

    Raises:
        UserError: a feature is not finite.
    """
    assert not isinstance(settings.layers, str)  # a list with one layer, not "default"
    (layer,) = settings.layers
    images = first_images(load_dataset(dataset, settings.view, TEST), settings.limit)
    index_of_images = images.joined_index.select(INDEX_COLUMNS)
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    device = devices.start(settings.compute)
    inputs = Images(images, preprocessing, device)
    batch_size = images_per_pass(settings.evaluation_batch_size, device.type)
    label = f"features of {run} on {dataset.name}"
    features_of_snapshots = {}
    for number, path in enumerate(snapshots, start=1):
        name = f"snapshot{number}"
        network = network_in_state(model_folder, {name: 1.0}, {name: path}, inputs)
        features_of_layers = features_of(network, inputs, batch_size, f"{label}, {name}")
        features_of_snapshots[name] = features_of_layers[layer]
    _store(features_of_snapshots, label, inputs, batch_size, features, manifest)
    pq.write_table(index_of_images, index)


def _store(
    features_by_name: Mapping[str, Tensor],
    label: str,
    inputs: Images,
    batch_size: int,
    features: Path,
    manifest: Path,
) -> None:
    """Write features {"stage1": (n, d), ...} and manifest if all are finite."""
    for name, tensor in features_by_name.items():
        refuse_infinite(tensor, f"{label}: a feature of '{name}'")
    safetensors.torch.save_file(dict(features_by_name), features)
    sizes = {name: tensor.shape[1] for name, tensor in features_by_name.items()}
    facts = {
        **devices.facts_of(inputs.device),
        "evaluation_batch_size": batch_size,
        "n": len(inputs),
        "layers": sizes,
    }
    write_json(manifest, facts)


# In inference mode autocast keeps no weights that it has cast.
@torch.no_grad()
def features_of(
    model: nn.Module, inputs: Images, evaluation_batch_size: int, label: str
) -> dict[str, Tensor]:
    """Features of all images, {"stage1": (n, d) float32 on the CPU, ...}."""
    features_of_batches = []
    batches = slices(len(inputs), evaluation_batch_size)
    inputs.expect(batches)
    with devices.keep_casts(inputs.device):
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

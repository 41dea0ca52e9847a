"""Shared invariances of two networks (STIR).

For a network m1 and an image x, representation inversion searches for an image x' with
m1(x') = m1(x), starting from noise. STIR(m2 | m1) is the CKA between m2's features for the images
and for their inversions: 1 if m2 can't distinguish them either, 0 if they are unrelated to m2.

Source: Nanda et al. 2022 (arXiv 2206.11939, section 3). As in the authors' code
(github.com/nvedant07/STIR, stir/stir.py and stir/attack/losses.py), the loss is the distance
between the representations divided by the norm of the wanted representation, and the best step of
each image is kept. Unlike there, the optimiser is Adam with cosine decay to zero, which needs fewer
steps, and pixels are clamped to the valid range.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress, log
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.evaluation_settings import InversionSettings
from rib.evaluation.finite import refuse_infinite
from rib.evaluation.networks import RunNetworks, mixture_of_run
from rib.grid.evaluation_batches import images_per_gradient, images_per_pass
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.images import Images, in_batches, slices
from rib.models.layers import layers_of
from rib.models.merge import Mixture
from rib.models.network import load
from rib.schema.run import PRETRAINED, Run

# From images (N, 3, H, W) with values 0..1 to features (N, d).
Representation = Callable[[Tensor], Tensor]
AS_STORED = {"mean": [0.0] * 3, "std": [1.0] * 3}  # gives pixels with values 0..1
NOISE = "noise"
TINY = 1e-12  # smallest norm, to avoid a division by zero


def invert(
    representation: Representation,
    wanted: Tensor,
    start: Tensor,
    steps: int,
    lr: float,
    progress: Progress,
) -> tuple[Tensor, Tensor]:
    """Images with given features, found by gradient descent on pixels, each independently.

    Args:
        wanted: features (N, d).
        start: images to start from, (N, 3, H, W) with values 0..1.
        lr: initial learning rate, in units of the pixel range.

    Returns:
        The images (N, 3, H, W) with the smallest residuals of all steps, and these residuals (N,):
        the distance from the wanted features divided by their norm.
    """
    pixels = start.clone().requires_grad_(True)
    best_images = start.clone()
    least_residuals = torch.full((len(start),), torch.inf, device=start.device)
    optimizer = torch.optim.Adam([pixels], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    norm = wanted.norm(dim=1).clamp_min(TINY)
    for step in range(steps + 1):
        is_last = step == steps  # the images after the last step are only measured
        with torch.set_grad_enabled(not is_last):
            distances = (representation(pixels) - wanted).norm(dim=1)
            residuals = distances / norm
        is_better = residuals.detach() < least_residuals
        best_images[is_better] = pixels.detach()[is_better]
        least_residuals[is_better] = residuals.detach()[is_better]
        if is_last:
            break
        optimizer.zero_grad()
        residuals.sum().backward()  # the sum keeps the images' gradients independent
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        progress.update(len(start))
    return best_images, least_residuals


def representation_of(
    model: nn.Module, preprocessing: Mapping, layer: str, device: torch.device
) -> Representation:
    """Function from images (N, 3, H, W) with values 0..1 to a network's features (N, d) at a layer.

    It raises a UserError if the network lacks the layer.

    Args:
        preprocessing: has `mean` and `std` per channel, for values 0..1: {"mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5], ...}.
        layer: such as `stage1`.
    """
    mean = torch.tensor(preprocessing["mean"], device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing["std"], device=device).view(1, 3, 1, 1)

    def features(images: Tensor) -> Tensor:
        inputs = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        features_of_layers = layers_of(model, inputs)
        if layer not in features_of_layers:
            raise UserError(
                f"config, stir.layer: the network has no '{layer}'; "
                f"choose from {', '.join(features_of_layers)}."
            )
        return features_of_layers[layer].float()

    return features


def starts(like: Tensor, start: str, mean: Sequence[float], seed: int) -> Tensor:
    """Images to start from, with values 0..1 in the shape of `like`, (N, 3, H, W).

    Args:
        start: `noise` for uniform noise, the same for every run, or `mean` for uniform images.
        mean: colour of uniform images, per channel.
    """
    if start == NOISE:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(like.shape, generator=generator).to(like.device)
    colour = torch.tensor(mean, device=like.device).view(1, 3, 1, 1)
    return colour.expand(like.shape).clone()


def _represent(
    networks: RunNetworks, mixture: Mixture, layer: str, device: torch.device
) -> Representation:
    """The mixture's network as a function from images (N, 3, H, W) in 0..1 to features (N, d)."""
    # In full precision and without fused BatchNorm, since gradients pass through the network.
    pretrained, facts = load(networks.model_folder, device)
    network = apply(pretrained, mixture, networks.checkpoints).eval().requires_grad_(False)
    return representation_of(network, facts["preprocessing"], layer, device)


def invert_run(
    *,
    run: Run,
    networks: RunNetworks,
    dataset: DatasetFiles,
    settings: InversionSettings,
    inverted: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Find other images that a run represents like a dataset's images, for STIR.

    Args:
        dataset: its test split if it is split; at most `settings.images` images.
        inverted: .safetensors file to write: `inverted` (n, 3, H, W) float32 in 0..1, and
            `residual` (n,), the relative distance from the wanted features.
        index: Parquet file to write: image_id and object_id of each image.
        manifest: JSON file to write: the device, n, the mean residual, and the number of forward
            and backward passes.

    Raises:
        UserError: the run has several networks, or a representation is not finite.
    """
    mixture = mixture_of_run(run, networks.states)
    chosen = first_images(load_dataset(dataset, settings.view, TEST), settings.images)
    ids_of_images = chosen.joined_index.select(["image_id", "object_id"])
    device = devices.start(settings.compute)
    pixels = Images(chosen, AS_STORED, device)[:]
    representation = _represent(networks, mixture, settings.layer, device)
    mean = networks.preprocessing["mean"]
    images_to_start_from = starts(pixels, settings.start, mean, settings.seed)
    label = f"inverting {run} on {dataset.name}"
    began = time.monotonic()
    images, residuals = _inverted_in_batches(
        settings, representation, pixels, images_to_start_from, label
    )
    refuse_infinite(residuals, f"{label}: a representation")
    n = len(pixels)
    passes = n * settings.steps
    mean_residual = residuals.mean()
    log.info(
        "inverted %d images in %d passes and %.0f s: mean residual %.3f",
        n,
        passes,
        time.monotonic() - began,
        mean_residual,
    )
    safetensors.torch.save_file({"inverted": images, "residual": residuals}, inverted)
    pq.write_table(ids_of_images, index)
    facts = {
        **devices.facts_of(device),
        "n": n,
        "passes": passes,
        "residual": round(mean_residual.item(), 6),
    }
    write_json(manifest, facts)


def _inverted_in_batches(
    settings: InversionSettings,
    representation: Representation,
    pixels: Tensor,
    images_to_start_from: Tensor,
    label: str,
) -> tuple[Tensor, Tensor]:
    """Inversions (n, 3, H, W) and residuals (n,) of `invert`, on the CPU."""
    progress = Progress(desc=label, total=len(pixels) * settings.steps, unit="pass")
    images_of_batches = []
    residuals_of_batches = []
    batch_size = images_per_gradient(settings.evaluation_batch_size)
    for rows in slices(len(pixels), batch_size):
        with torch.no_grad():
            wanted = representation(pixels[rows])
        images_of_batch, residuals_of_batch = invert(
            representation,
            wanted,
            images_to_start_from[rows],
            settings.steps,
            settings.lr,
            progress,
        )
        images_of_batches.append(images_of_batch)
        residuals_of_batches.append(residuals_of_batch)
    progress.close()
    images = torch.cat(images_of_batches).cpu().contiguous()
    residuals = torch.cat(residuals_of_batches).cpu().contiguous()
    return images, residuals


def cross_features(
    *,
    run: Run,
    networks: RunNetworks,
    dataset: DatasetFiles,
    settings: InversionSettings,
    inverted_before: Path,
    inverted_after: Path,
    features: Path,
) -> None:
    """Features for STIR: of a pretrained and a fine-tuned network for images and both inversions.

    Args:
        dataset: its test split if it is split; at most `settings.images` images.
        inverted_before: inversions of the pretrained network, written by `invert_run`.
        inverted_after: inversions of the fine-tuned network.
        features: .safetensors file to write: `<network>.<images>` (n, d), such as
            `before.inverted_after`, with the networks `before` and `after` and the images `images`,
            `inverted_before` and `inverted_after`; also `residual_before` and `residual_after`
            (n,).

    Raises:
        UserError: the run has several networks.
    """
    mixtures: dict[str, Mixture] = {
        "before": {PRETRAINED: 1.0},
        "after": mixture_of_run(run, networks.states),
    }
    chosen = first_images(load_dataset(dataset, settings.view, TEST), settings.images)
    device = devices.start(settings.compute)
    batch_size = images_per_pass(settings.evaluation_batch_size, device.type)
    images_by_name = {"images": Images(chosen, AS_STORED, device)[:]}
    tensors = {}
    for name, path in {"before": inverted_before, "after": inverted_after}.items():
        inversion = safetensors.torch.load_file(path, device.type)
        images_by_name[f"inverted_{name}"] = inversion["inverted"]
        tensors[f"residual_{name}"] = inversion["residual"]
    label = f"features of {run} on {dataset.name}"
    for network, mixture in mixtures.items():
        representation = _represent(networks, mixture, settings.layer, device)
        for name, images in images_by_name.items():
            tensors[f"{network}.{name}"] = in_batches(representation, images, batch_size, label)
    safetensors.torch.save_file(tensors, features)

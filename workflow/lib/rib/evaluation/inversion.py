"""Shared invariances of two networks (STIR).

For a reference network m1 and an image x, representation inversion searches for an image x' with m1(x') = m1(x),
starting from noise. STIR(m2 | m1) is the CKA of m2's features of the images and of their inversions: 1 if m2 can't
distinguish them either, 0 if they are unrelated to m2.

Source: Nanda et al. 2022 (arXiv 2206.11939, section 3). As in the authors' code (github.com/nvedant07/STIR,
stir/stir.py and stir/attack/losses.py), the loss is the distance between the representations divided by the norm of the
target representation, and the best step of each image is kept. Unlike there, the optimiser is Adam with cosine decay to
zero, which needs fewer steps, and pixels are clamped to the valid range.
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
from rib.config.run import PRETRAINED
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.evaluation.settings import InversionSettings
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs, in_batches
from rib.models.layers import layers_of
from rib.models.merge import Weights
from rib.models.network import load

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
    """Images with given features, found by gradient descent on pixels, independently for each image.

    The features `wanted` are (N, d), the images to `start` from (N, 3, H, W) with values 0..1. Returns the best images
    (N, 3, H, W), and their residuals (N,): distance from the wanted features divided by their norm.
    """
    pixels = start.clone().requires_grad_(True)
    best, least = start.clone(), torch.full((len(start),), torch.inf, device=start.device)
    optimizer = torch.optim.Adam([pixels], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    norm = wanted.norm(dim=1).clamp_min(TINY)
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            residual = (representation(pixels) - wanted).norm(dim=1) / norm
        better = residual.detach() < least
        best[better], least[better] = pixels.detach()[better], residual.detach()[better]
        if step == steps:
            break
        optimizer.zero_grad()
        residual.sum().backward()  # the sum keeps the images' gradients independent
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        progress.update(len(start))
    return best, least


def representation_of(
    model: nn.Module, preprocessing: Mapping, layer: str, device: torch.device
) -> Representation:
    """A network's features at a layer (see rib.models.layers), as a function of images with values 0..1."""
    mean, std = (
        torch.tensor(preprocessing[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std")
    )

    def features(images: Tensor) -> Tensor:
        found = layers_of(
            model, ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        )
        if layer not in found:
            raise UserError(
                f"config, stir.layer: the network has no '{layer}'; choose from {', '.join(found)}."
            )
        return found[layer].float()

    return features


def starts(like: Tensor, start: str, mean: Sequence[float], seed: int) -> Tensor:
    """Starting images shaped like `like`: uniform noise, the same for every run, or the channel means."""
    if start == NOISE:
        return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like.device)
    return torch.tensor(mean, device=like.device).view(1, 3, 1, 1).expand(like.shape).clone()


def _represent(
    source: RunOnDataset, weights: Weights, layer: str, device: torch.device
) -> Representation:
    """Representation in full precision and without fused BatchNorm, since gradients pass through the network."""
    model = (
        apply(load(source.model_folder, device)[0], weights, source.checkpoints)
        .eval()
        .requires_grad_(False)
    )
    return representation_of(model, source.preprocessing, layer, device)


def invert_run(
    *,
    source: RunOnDataset,
    settings: InversionSettings,
    inverted: Path,
    index: Path,
    manifest: Path,
) -> None:
    """Invert a run's representation of a dataset's images; a UserError for a curve, or if one is not finite.

    Args:
        inverted: written as .safetensors: `inverted` (n, 3, H, W) float32 in 0..1, `residual` (n,) (see `invert`).
        index: written as Parquet: image_id and object_id of each image.
        manifest: written as JSON: the device, n, the mean residual, and the number of forward and backward passes.
    """
    weights, device = source.weights, devices.start(source.compute)
    dataset = source.images(settings.images)
    pixels = Inputs.of(dataset, AS_STORED, device)[:]
    representation = _represent(source, weights, settings.layer, device)
    start = starts(pixels, settings.start, source.preprocessing["mean"], settings.seed)
    n, steps = len(pixels), settings.steps
    progress, began, parts = (
        Progress(desc=f"inverting {source}", total=n * steps, unit="pass"),
        time.monotonic(),
        [],
    )
    for first in range(0, n, source.batch_size):
        rows = slice(first, first + source.batch_size)
        with torch.no_grad():
            wanted = representation(pixels[rows])
        parts.append(invert(representation, wanted, start[rows], steps, settings.lr, progress))
    progress.close()
    images, residual = (
        torch.cat(tensors).cpu().contiguous() for tensors in zip(*parts, strict=True)
    )
    source.refuse_infinite("a representation", residual)
    seconds = time.monotonic() - began
    log.info(
        "inverted %d images in %d passes and %.0f s: mean residual %.3f",
        n,
        n * steps,
        seconds,
        residual.mean(),
    )
    safetensors.torch.save_file({"inverted": images, "residual": residual}, inverted)
    pq.write_table(dataset.joined_index.select(["image_id", "object_id"]), index)
    facts = {"n": n, "passes": n * steps, "residual": round(residual.mean().item(), 6)}
    write_json(manifest, {"device": device.type, **facts})


def cross_features(
    *,
    source: RunOnDataset,
    settings: InversionSettings,
    inverted_before: Path,
    inverted_after: Path,
    features: Path,
) -> None:
    """Features of a pretrained and a fine-tuned network for images and for both networks' inversions of them.

    They are written as .safetensors, (n, d) each: `<network>.<images>`, with network `before` or `after` and images
    `images`, `inverted_before` or `inverted_after`; also `residual_before` and `residual_after` (n,).
    """
    weights, device = source.weights, devices.start(source.compute)
    pixels = Inputs.of(source.images(settings.images), AS_STORED, device)[:]
    files = {"before": inverted_before, "after": inverted_after}
    stored = {when: safetensors.torch.load_file(path, device.type) for when, path in files.items()}
    shown = {"images": pixels} | {
        f"inverted_{when}": part["inverted"] for when, part in stored.items()
    }
    found = {f"residual_{when}": part["residual"] for when, part in stored.items()}
    for when, state in {"before": {PRETRAINED: 1.0}, "after": weights}.items():
        representation = _represent(source, state, settings.layer, device)
        for name, images in shown.items():
            found[f"{when}.{name}"] = in_batches(
                representation, images, source.batch_size, f"features of {source}"
            )
    safetensors.torch.save_file(found, features)

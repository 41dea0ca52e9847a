"""Which invariances two networks share: images that one can't tell apart, seen by the other (STIR).

For a reference network m1 and an image x, representation inversion looks for an image x' with m1(x') = m1(x), starting
from noise; what x' has in common with x is what m1 has kept of it. STIR(m2 | m1) is the CKA of m2's features of the images
and of their inversions: 1 where m2 can't tell them apart either, 0 where it sees nothing in common. Nanda et al. 2022
(arXiv 2206.11939, section 3). As in the authors' code (github.com/nvedant07/STIR, stir/stir.py and stir/attack/losses.py)
the loss is the distance of the representations over the norm of the wanted one, and of all steps each image's best is
kept. Other than there, steps are Adam's with a cosine to zero, which needs fewer of them, and pixels stay within an image's
range.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor, nn

from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST, opened, part
from rib.features import first_images, layers_of
from rib.io import Progress, UserError, log, read_json, write_json
from rib.merge import State
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.pretrained import load
from rib.runs import PRETRAINED

# From images (N, 3, H, W) with values 0..1 to features (N, d).
Representation = Callable[[Tensor], Tensor]
NOISE, MEAN = "noise", "mean"
TINY = 1e-12  # below the norm of any features, so that those of 0 divide by no 0


def invert(
    representation: Representation, wanted: Tensor, start: Tensor, steps: int, lr: float, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Images with given features, by gradient descent on pixels; each image by itself.

    Args:
        representation: of the reference network; no gradient is taken of its weights.
        wanted: (N, d) features to reach.
        start: (N, 3, H, W), values 0..1.
        steps: of descent.
        lr: of the first step, in units of the pixels' range; a cosine takes it to 0.
        progress: counts passes of an image.

    Returns:
        The best images (N, 3, H, W), and their residuals (N,): distance from the wanted features over their norm.
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
        residual.sum().backward()  # a sum, so that an image's gradient doesn't hang on the others
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        progress.update(len(start))
    return best, least


def representation_of(model: nn.Module, preprocessing: Mapping, layer: str, device: torch.device) -> Representation:
    """A network's features at a layer (see rib.features), as a function of images with values 0..1.

    Raises:
        UserError: when called, if the network lacks the layer.
    """
    mean, std = (torch.tensor(preprocessing[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))

    def features(images: Tensor) -> Tensor:
        found = layers_of(model, ((images - mean) / std).contiguous(memory_format=torch.channels_last))
        if layer not in found:
            raise UserError(
                f"config, stir.layer: the network has no '{layer}', but {', '.join(found)}; name one of those."
            )
        return found[layer].float()

    return features


def starts(like: Tensor, start: str, mean: Sequence[float], seed: int) -> Tensor:
    """Where descent starts: uniform noise, the same for every run, or the channel means; shape and device as given."""
    if start == NOISE:
        noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(like.device)
    return torch.tensor(mean, device=like.device).view(1, 3, 1, 1).expand(like.shape).clone()


class _Seen:
    """What both jobs of STIR need: the device, a run's network, and images with values 0..1.

    Weights are in full precision and BatchNorm is not folded, since gradients pass through.
    """

    def __init__(
        self,
        model_folder: Path,
        dataset_folder: Path,
        apart: Path | None,
        images: Mapping,
        split: Path | None,
        dataset: str,
        limit: int,
        compute: Mapping,
    ):
        self.device = devices.start(**compute)
        self.folder = model_folder
        self.preprocessing = read_json(model_folder / "model.json")["preprocessing"]
        whole = part(opened(dataset_folder, dataset, images, apart), TEST, split)
        self.dataset: PreparedDataset = first_images(whole, limit)
        self.pixels = Inputs(self.dataset.images, [0.0] * 3, [1.0] * 3, self.device, self.dataset.rows)[slice(None)]

    def representation(self, weights: Mapping[str, float], checkpoints: Mapping[str, Path], layer: str):
        """Of the network in a state (see rib.merge.run_states)."""
        model = apply(load(self.folder, self.device)[0], weights, checkpoints).eval().requires_grad_(False)
        return representation_of(model, self.preprocessing, layer, self.device)


def invert_run(
    *,
    states: Sequence[State],
    checkpoints: Mapping[str, Path],
    what: Mapping[str, str],
    settings: Mapping,
    batch_size: int,
    inverted: Path,
    index: Path,
    manifest: Path,
    **seen,
) -> None:
    """Invert a run's representation of a dataset's images.

    Args:
        states: the run's one state (see rib.merge.run_states).
        checkpoints: file of each fine-tuned method.
        what: model, target, method and dataset.
        settings: images, steps, layer, start, lr, seed.
        batch_size: images at once through the network.
        inverted: written as .safetensors: `inverted` (n, 3, H, W) float32 in 0..1, `residual` (n,) (see `invert`).
        index: written as Parquet: image_id and object_id of each.
        manifest: written as JSON: the device, n, the mean residual, and passes (an image forward and back, once).
        seen: model_folder, dataset_folder, apart, images, split, compute, as for rib.features.

    Raises:
        UserError: a curve, which has several states, or a representation that is not finite.
    """
    title = "/".join(what.values())
    if len(states) > 1:
        raise UserError(f"stir of {title}: a curve has several states; name one of its ends instead.")
    scene = _Seen(dataset=what["dataset"], limit=settings["images"], **seen)
    representation = scene.representation(states[0][1], checkpoints, settings["layer"])
    start = starts(scene.pixels, settings["start"], scene.preprocessing["mean"], settings["seed"])
    n, steps = len(scene.pixels), settings["steps"]
    progress, began, parts = Progress(desc=f"inverting {title}", total=n * steps, unit="pass"), time.monotonic(), []
    for place in range(0, n, batch_size):
        rows = slice(place, place + batch_size)
        with torch.no_grad():
            wanted = representation(scene.pixels[rows])
        parts.append(invert(representation, wanted, start[rows], steps, settings["lr"], progress))
    progress.close()
    images, residual = (torch.cat(tensors).cpu().contiguous() for tensors in zip(*parts, strict=True))
    if not residual.isfinite().all():
        raise UserError(f"stir of {title}: a representation is not finite; don't use these weights.")
    log.info(
        "inverted %d images in %d passes forward and back and %.0f s: mean residual %.3f",
        n, n * steps, time.monotonic() - began, residual.mean(),
    )  # fmt: skip
    safetensors.torch.save_file({"inverted": images, "residual": residual}, inverted)
    pq.write_table(scene.dataset.index.select(["image_id", "object_id"]), index)
    facts = {"n": n, "passes": n * steps, "residual": round(residual.mean().item(), 6)}
    write_json(manifest, {"device": scene.device.type, **facts})


def cross_features(
    *,
    states: Sequence[State],
    checkpoints: Mapping[str, Path],
    inverted_before: Path,
    inverted_after: Path,
    dataset: str,
    settings: Mapping,
    batch_size: int,
    features: Path,
    **seen,
) -> None:
    """Features by a pretrained network and a fine-tuned run of images and of both networks' inversions of them.

    Args:
        states: the run's one state.
        checkpoints: file of each fine-tuned method.
        inverted_before: what `invert_run` wrote for the pretrained model.
        inverted_after: likewise for the run.
        dataset: whose images.
        settings: images, layer, as for `invert_run`.
        batch_size: images per forward pass.
        features: written as .safetensors: by `before` and `after` (the network that sees), each (n, d) of `images`,
            `inverted_before` and `inverted_after`, joined with a point; `residual_before` and `residual_after` (n,).
        seen: see `invert_run`.
    """
    scene = _Seen(dataset=dataset, limit=settings["images"], **seen)
    stored = {"before": inverted_before, "after": inverted_after}
    stored = {when: safetensors.torch.load_file(path) for when, path in stored.items()}
    shown = {"images": scene.pixels} | {f"inverted_{when}": part["inverted"] for when, part in stored.items()}
    found = {f"residual_{when}": part["residual"] for when, part in stored.items()}
    for when, weights in {"before": {PRETRAINED: 1.0}, "after": states[0][1]}.items():
        representation = scene.representation(weights, checkpoints, settings["layer"])
        for name, images in shown.items():
            found[f"{when}.{name}"] = _in_batches(representation, images, batch_size, scene.device)
    safetensors.torch.save_file(found, features)


@torch.inference_mode()
def _in_batches(representation: Representation, images: Tensor, batch_size: int, device: torch.device) -> Tensor:
    places = range(0, len(images), batch_size)
    return torch.cat([representation(images[place : place + batch_size].to(device)).cpu() for place in places])

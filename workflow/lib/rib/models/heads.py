"""Heads for a family's classes that are fitted on the pretraining proxy, and tokenizers for zero-shot ones."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress, log
from rib.config.model_arguments import TOKENIZER_OPTIONS
from rib.data.prepared import PreparedDataset
from rib.data.subsets import held_back
from rib.models.inputs import Inputs, in_batches
from rib.models.network import head_inputs

SELECT_FRACTION = 0.2  # fraction of each class's images on which the penalty is chosen
POWERS = range(
    1, -7, -1
)  # penalties as powers of ten, strongest first, since each fit starts from the previous one
STRONGEST, WEAKEST = 4, -8  # limits of the search for a penalty
ITERATIONS = 500
BATCH = 64
CHUNK = 1 << 16  # images whose logits are in memory at once


def load_tokenizer(
    architecture: str, arguments: Mapping, files: Sequence[Path], sources: Sequence[Mapping]
) -> Callable:
    """The tokenizer of an open_clip model, its own or one made from files, given with their sources; never from the hub."""
    import open_clip

    config = arguments.get("model_cfg") or open_clip.get_model_config(architecture)
    options = config["text_cfg"].get("tokenizer_kwargs", {})
    if not TOKENIZER_OPTIONS.issuperset(options) or any(
        b"auto_map" in file.read_bytes() for file in files
    ):
        raise UserError(
            f"{architecture}: its tokenizer has other options than open_clip's own, or code; don't use it."
        )
    never = (
        {"trust_remote_code": False} if "hf_tokenizer_name" in config["text_cfg"] else {}
    )  # nor ask on the terminal
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
        for file, source in zip(files, sources, strict=True):
            shutil.copyfile(file, Path(folder) / Path(source["path"]).name)
        try:
            return open_clip.get_tokenizer(f"local-dir:{folder}", **never)
        except Exception as error:  # of transformers
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{architecture}: its tokenizer can't be made from {', '.join(map(str, files))} ({why})."
            ) from error


def fit_head(
    model: nn.Module, reference: PreparedDataset, preprocessing: Mapping, device: torch.device
) -> dict:
    """Fit the linear head of a network in evaluation mode, in place, by regularised logistic regression.

    The penalty is chosen by cross-entropy on held-out images of the pretraining proxy, since cross-entropy, unlike
    accuracy, also takes confidence into account. The head is then fitted on the whole proxy. Raises a UserError if the
    network has no linear head, a class has no image, or no class has two.

    Returns:
        The penalty, the mean cross-entropy of each candidate on the select images in nats, accuracy and mean confidence
        of the chosen one there as fractions, and the number of images.
    """
    head = model.get_classifier()
    if not isinstance(head, nn.Linear | nn.Conv2d):
        raise UserError(
            f"the network's head is a {type(head).__name__}, but only a linear head can be fitted."
        )
    labels = torch.tensor(
        [reference.space.indices[label][0] for label in reference.labels], device=device
    )
    if missing := set(range(head.weight.shape[0])) - set(labels.tolist()):
        raise UserError(
            f"{len(missing)} of {head.weight.shape[0]} classes have no image in the pretraining proxy, such as output "
            f"{min(missing)}; a head can't be fitted on it."
        )
    inputs = Inputs.of(reference, preprocessing, device)
    features = in_batches(
        partial(head_inputs, model), inputs, BATCH, "features for the head"
    ).float()
    mean, scale = features.mean(dim=0), features.std(dim=0).mean()
    features.sub_(mean).div_(
        scale
    )  # a common scale, so that penalties are comparable between networks
    select = torch.from_numpy(held_back(reference, SELECT_FRACTION)).to(device)
    if not select.any():
        raise UserError(
            "the pretraining proxy has one image per class, so none can be held out to choose the penalty; add more."
        )
    found = _on_select_part(features, labels, select, head.weight.shape[0])
    best = _chosen(found)
    weight, bias = _fit(features, labels, head.weight.shape[0], 10.0**best, None)
    with torch.no_grad():
        head.weight.copy_((weight / scale).view_as(head.weight))
        head.bias.copy_(bias - (weight / scale) @ mean)
    _tell(best, found[best])
    return {
        "penalty": 10.0**best,
        "select_cross_entropy": {
            f"{10.0**power:g}": round(part["cross_entropy"], 6) for power, part in found.items()
        },
        "select_accuracy": round(found[best]["accuracy"], 6),
        "select_confidence": round(found[best]["confidence"], 6),
        "images": len(labels),
    }


def _tell(power: int, found: Mapping[str, float]) -> None:
    message = "head fitted with penalty %g: on the select images accuracy %.1f %%, confidence %.2f, cross-entropy %.3f"
    log.info(
        message, 10.0**power, 100 * found["accuracy"], found["confidence"], found["cross_entropy"]
    )
    if power in (STRONGEST, WEAKEST):
        log.warning(
            "the head's penalty %g is at the end of the search range, so another might fit better: this model's "
            "confidence before fine-tuning depends on the range",
            10.0**power,
        )


def _on_select_part(
    features: Tensor, labels: Tensor, select: Tensor, classes: int
) -> dict[int, dict[str, float]]:
    """Results on the select images, (n,) bool, of fits on the others, by penalty as a power of ten.

    The range is extended, up to a limit, while the best penalty is at one of its ends.
    """
    found, fits = {}, {}

    def try_penalty(power: int, start: tuple[Tensor, Tensor] | None) -> None:
        weight, bias = fits[power] = _fit(
            features[~select], labels[~select], classes, 10.0**power, start
        )
        logits = features[select] @ weight.T + bias
        confidence, prediction = logits.softmax(dim=1).max(dim=1)
        found[power] = {
            "cross_entropy": F.cross_entropy(logits, labels[select]).item(),
            "accuracy": (prediction == labels[select]).float().mean().item(),
            "confidence": confidence.mean().item(),
        }

    for power in Progress(POWERS, desc="choosing the head's penalty", unit="fit"):
        try_penalty(power, fits.get(power + 1))
    while STRONGEST > (best := _chosen(found)) > WEAKEST and best in (max(found), min(found)):
        try_penalty(best + 1 if best == max(found) else best - 1, fits[best])
    return found


def _chosen(found: Mapping[int, Mapping[str, float]]) -> int:
    """The penalty, as a power of ten, with the lowest cross-entropy; the strongest of ties."""
    return min(found, key=lambda power: (found[power]["cross_entropy"], -power))


def _fit(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalty: float,
    start: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Minimise mean CE(W x + b, y) + penalty / 2 |W|^2, which is convex, over W (C, d) and b (C,)."""
    weight, bias = start or (
        features.new_zeros(classes, features.shape[1]),
        features.new_zeros(classes),
    )
    weight, bias = (part.clone().requires_grad_() for part in (weight, bias))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        # Double precision: in single precision, changes of the loss below 1e-7 are lost and the solver stops early.
        value = penalty / 2 * weight.double().square().sum()
        value.backward()
        for start in range(
            0, len(labels), CHUNK
        ):  # the logits of all images may not fit into memory
            rows = slice(start, start + CHUNK)
            losses = F.cross_entropy(
                features[rows] @ weight.T + bias, labels[rows], reduction="none"
            )
            part = losses.double().sum() / len(labels)
            part.backward()
            value = value.detach() + part.detach()
        return value

    solver.step(loss)
    return weight.detach(), bias.detach()

"""Heads for models that come without one for a family's classes: from class names, or fitted on its reference dataset."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.data.prepared import PreparedDataset
from rib.data.splits import held_back
from rib.io import Progress, UserError, log
from rib.models.device import autocast
from rib.models.inputs import Inputs, in_batches

SELECT_SHARE = 0.2  # of the reference's images of each class, on which the penalty is chosen
POWERS = range(1, -7, -1)  # of ten: the penalties tried, strongest first, so that each fit starts near its end
STRONGEST, WEAKEST = 4, -8  # powers beyond which the search for a penalty doesn't go
ITERATIONS = 500
BATCH = 64
CHUNK = 1 << 16  # images whose logits the fit holds at once


def zero_shot_head(clip: nn.Module, architecture: str, names: Sequence[str] | None, device: torch.device) -> Tensor:
    """Weights (C, d) of a head on unit features that gives CLIP's logits: class names in templates, averaged.

    Args:
        clip: an open_clip model.
        architecture: its name there, which says how text is tokenized.
        names: of the classes; None for ImageNet's, as open_clip has them.
        device: where to compute.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4; open_clip/zero_shot_classifier.py.
    """
    import open_clip

    with torch.inference_mode():
        embedded = open_clip.build_zero_shot_classifier(
            clip,
            open_clip.get_tokenizer(architecture),
            names or open_clip.IMAGENET_CLASSNAMES,
            open_clip.OPENAI_IMAGENET_TEMPLATES,
            device=device,
        )
        return (clip.logit_scale.exp() * embedded.T).contiguous()


def fit_head(model: nn.Module, reference: PreparedDataset, preprocessing: Mapping, device: torch.device) -> dict:
    """Fit the network's linear head by regularised logistic regression on its features, which are computed once.

    The penalty is chosen by cross-entropy on a part of the reference that the fit doesn't see, so that confidence counts
    too, which accuracy is blind to; the head is then fitted on all of it.

    Args:
        model: in evaluation mode, its head of the right width; the head is changed in place.
        reference: images of the family's classes.
        preprocessing: mean and std.
        device: where to compute.

    Returns:
        What is worth knowing: the penalty, the mean cross-entropy of each on the select part in nats, the chosen one's
        accuracy and mean confidence there as fractions, the number of images.

    Raises:
        UserError: the network has no linear head, a class has no image to fit on, or no class has two.
    """
    head = model.get_classifier()
    if not isinstance(head, nn.Linear | nn.Conv2d):
        raise UserError(f"the network's head is a {type(head).__name__}, and only a linear one can be fitted.")

    def features_of(images: Tensor) -> Tensor:
        with autocast(device):
            return model.forward_head(model.forward_features(images), pre_logits=True).flatten(1)

    labels = torch.tensor([reference.space.indices[label][0] for label in reference.labels], device=device)
    if missing := set(range(head.weight.shape[0])) - set(labels.tolist()):
        raise UserError(
            f"{len(missing)} of {head.weight.shape[0]} classes have no image in the reference dataset, output {min(missing)} "
            "for one; a head can't be fitted on it."
        )
    inputs = Inputs(reference.images, preprocessing["mean"], preprocessing["std"], device, reference.rows)
    features = in_batches(features_of, inputs, BATCH, "features for the head").float()
    mean, scale = features.mean(dim=0), features.std(dim=0).mean()
    features.sub_(mean).div_(scale)  # one scale for all, so that a penalty means the same for every network
    select = torch.from_numpy(held_back(reference, SELECT_SHARE)).to(device)
    if not select.any():
        raise UserError(
            "the reference dataset has one image per class, so none can be held back to choose the head's penalty; give it more."
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
        "select_cross_entropy": {f"{10.0**power:g}": round(part["cross_entropy"], 6) for power, part in found.items()},
        "select_accuracy": round(found[best]["accuracy"], 6),
        "select_confidence": round(found[best]["confidence"], 6),
        "images": len(labels),
    }


def _tell(power: int, found: Mapping[str, float]) -> None:
    log.info(
        "head fitted with penalty %g: of the select part %.1f %% right at a mean confidence of %.2f, cross-entropy %.3f",
        10.0**power,
        100 * found["accuracy"],
        found["confidence"],
        found["cross_entropy"],
    )
    if power in (STRONGEST, WEAKEST):
        log.warning(
            "the head's penalty %g is the %s that is tried, and another might fit better: confidence of this model before "
            "fine-tuning says as much of this bound as of the model",
            10.0**power,
            "strongest" if power == STRONGEST else "weakest",
        )


def _on_select_part(features: Tensor, labels: Tensor, select: Tensor, classes: int) -> dict[int, dict[str, float]]:
    """How fits on the rest do on the select part, (n,) bool, by penalty as a power of ten.

    While the best lies at an end of those tried, the next beyond it is tried too, up to a bound.
    """
    found, fits = {}, {}

    def try_penalty(power: int, start: tuple[Tensor, Tensor] | None) -> None:
        weight, bias = fits[power] = _fit(features[~select], labels[~select], classes, 10.0**power, start)
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
    """The penalty, as a power of ten, of the lowest cross-entropy; the strongest of equal ones."""
    return min(found, key=lambda power: (found[power]["cross_entropy"], -power))


def _fit(
    features: Tensor, labels: Tensor, classes: int, penalty: float, start: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Minimise mean CE(W x + b, y) + penalty / 2 |W|^2, which is convex, over W (C, d) and b (C,)."""
    weight, bias = start or (features.new_zeros(classes, features.shape[1]), features.new_zeros(classes))
    weight, bias = (part.clone().requires_grad_() for part in (weight, bias))
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        # Summed in double precision: in single, steps of the loss below 1e-7 are lost and the solver stops short.
        value = penalty / 2 * weight.double().square().sum()
        value.backward()
        for start in range(0, len(labels), CHUNK):  # logits of a million images at once would not fit
            rows = slice(start, start + CHUNK)
            losses = F.cross_entropy(features[rows] @ weight.T + bias, labels[rows], reduction="none")
            part = losses.double().sum() / len(labels)
            part.backward()
            value = value.detach() + part.detach()
        return value

    solver.step(loss)
    return weight.detach(), bias.detach()

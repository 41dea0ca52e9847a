"""Scores of images by networks: predictions, ranks, probabilities and margins."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rib.base.progress import Progress
from rib.data.prepared import PreparedDataset
from rib.models import device as devices
from rib.models.class_logits import class_logits, class_members, padded
from rib.models.inputs import Inputs


@torch.inference_mode()
def score(
    models: Sequence[Callable[[Tensor], Tensor]],
    inputs: Inputs,
    dataset: PreparedDataset,
    batch_size: int,
    progress: Progress,
) -> list[dict[str, Tensor]]:
    """Score every network on every image, from the logits of the dataset's classes; each batch is read once.

    Right answers are the label and the classes that the label space also counts as right (`also`).

    Returns:
        For each network, tensors (n,), int64 or float32: prediction, the first of equal classes; rank, the number of
        classes that beat the best right answer, of equal ones those with a lower index (0: correct; a NaN beats all);
        log_prob, the log-softmax of the label; energy, the log-sum-exp of all classes, NaN if a logit is not finite;
        confidence, the softmax of the prediction, 0 to 1; margin, the logit of the best right answer minus the highest
        of the other classes; brier, the sum over classes of (softmax - 1 for the label and 0 for others) squared, 0 to
        2 (Brier 1950; for several classes as in Ovadia et al. 2019, arXiv 1906.02530).
    """
    members, also = (
        class_members(dataset.space, inputs.device),
        dataset.space.also or [()] * len(dataset.space.keys),
    )
    answers = padded([(label, *others) for label, others in enumerate(also)], inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    parts: list[list[dict]] = [[] for _ in models]
    for start in range(0, len(inputs), batch_size):
        batch = slice(start, start + batch_size)
        pixels, right = inputs[batch], answers[labels[batch]]
        for model, found in zip(models, parts, strict=True):
            with devices.autocast(inputs.device):
                logits = model(pixels)
            found.append(_summary(class_logits(logits.float(), members), right))
        progress.update(len(pixels))
    return [
        {name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}
        for found in parts
    ]


def correct(
    model: nn.Module, inputs: Inputs, dataset: PreparedDataset, batch_size: int, what: str
) -> Tensor:
    """Whether a network is right on each image: (n,) bool on the CPU; `what` labels the progress bar."""
    progress = Progress(desc=what, total=len(inputs), unit="image")
    (found,) = score([model], inputs, dataset, batch_size, progress)
    progress.close()
    return found["rank"] == 0


def _summary(scores: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Results of `score` for class logits (N, C) and right answers (N, K), the label first."""
    own = scores.gather(1, right)
    best = own.amax(dim=1, keepdim=True)
    place = right.masked_fill(own != best, scores.shape[1]).amin(
        dim=1, keepdim=True
    )  # the first of equal answers
    classes = torch.arange(scores.shape[1], device=scores.device)
    beaten = (best > scores) | ((best == scores) & (classes >= place))
    others = scores.scatter(1, right, float("-inf")).amax(dim=1)
    prediction, log_probs = (
        scores.argmax(dim=1),
        scores.log_softmax(dim=1),
    )  # argmax: the first of equal scores
    errors = log_probs.exp().scatter_add(
        1, right[:, :1], scores.new_full((len(scores), 1), -1)
    )  # softmax - one-hot
    return {
        "prediction": prediction,
        "rank": scores.shape[1] - beaten.sum(dim=1),
        "log_prob": log_probs.gather(1, right[:, :1])[:, 0],
        "energy": scores.logsumexp(dim=1).where(scores.isfinite().all(dim=1), torch.nan),
        "confidence": log_probs.gather(1, prediction[:, None])[:, 0].exp(),
        "margin": best[:, 0] - others,
        "brier": errors.square().sum(dim=1),
    }

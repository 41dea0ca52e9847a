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
    evaluation_batch_size: int,
    progress: Progress,
) -> list[dict[str, Tensor]]:
    """Score every network on every image, from the logits of the dataset's classes.

    Each batch is read once. Right answers are the label and the classes that the label space also
    counts as right (`also`).

    Returns:
        For each network, tensors (n,), int64 or float32:

        - prediction: the first of equal classes
        - rank: number of classes that beat the best right answer, of equal ones those with a lower
          index (0: correct; a NaN beats all)
        - log_prob: the log-softmax of the label
        - energy: the log-sum-exp of all classes, NaN if a logit is not finite
        - confidence: the softmax of the prediction, 0 to 1
        - margin: the logit of the best right answer minus the highest of the other classes
        - brier: the sum over classes of (softmax - 1 for the label and 0 for others) squared, 0 to
          2 (Brier 1950; for several classes as in Ovadia et al. 2019, arXiv 1906.02530)
    """
    space = dataset.space
    members = class_members(space, inputs.device)
    right_answers = []  # of each class, itself first
    for label in range(len(space.keys)):
        also_right = space.also[label] if space.also else ()
        right_answers.append((label, *also_right))
    answers_of_labels = padded(right_answers, inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    batches_of_models: list[list[dict[str, Tensor]]] = [[] for _ in models]
    for start in range(0, len(inputs), evaluation_batch_size):
        batch = slice(start, start + evaluation_batch_size)
        pixels = inputs[batch]
        answers = answers_of_labels[labels[batch]]
        for model, batches in zip(models, batches_of_models, strict=True):
            with devices.autocast(inputs.device):
                logits = model(pixels)
            batches.append(_summary(class_logits(logits.float(), members), answers))
        progress.update(len(pixels))
    return [_joined(batches) for batches in batches_of_models]


def _joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Results of all images of a network, on the CPU, from those of its batches."""
    results = {}
    for name in batches[0]:
        results[name] = torch.cat([batch[name] for batch in batches]).cpu()
    return results


def correct(
    model: nn.Module,
    inputs: Inputs,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    label: str,
) -> Tensor:
    """Whether a network is right on each image: (n,) bool on the CPU.

    `label` is that of the progress bar.
    """
    progress = Progress(desc=label, total=len(inputs), unit="image")
    (scores,) = score([model], inputs, dataset, evaluation_batch_size, progress)
    progress.close()
    return scores["rank"] == 0


def _summary(scores: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Results of `score` for class logits (N, C) and right answers (N, K), the label first."""
    number_of_images, number_of_classes = scores.shape
    labels = answers[:, :1]
    scores_of_answers = scores.gather(1, answers)
    best = scores_of_answers.amax(dim=1, keepdim=True)
    # Of equal answers, the first class counts.
    is_not_best = scores_of_answers != best
    best_answer = answers.masked_fill(is_not_best, number_of_classes).amin(dim=1, keepdim=True)
    classes = torch.arange(number_of_classes, device=scores.device)
    beaten = (best > scores) | ((best == scores) & (classes >= best_answer))
    best_of_others = scores.scatter(1, answers, float("-inf")).amax(dim=1)
    prediction = scores.argmax(dim=1)  # the first of equal scores
    log_probs = scores.log_softmax(dim=1)
    minus_one = scores.new_full((number_of_images, 1), -1)
    errors = log_probs.exp().scatter_add(1, labels, minus_one)  # softmax - one-hot
    energy = scores.logsumexp(dim=1)
    all_finite = scores.isfinite().all(dim=1)
    return {
        "prediction": prediction,
        "rank": number_of_classes - beaten.sum(dim=1),
        "log_prob": log_probs.gather(1, labels)[:, 0],
        "energy": energy.where(all_finite, torch.nan),
        "confidence": log_probs.gather(1, prediction[:, None])[:, 0].exp(),
        "margin": best[:, 0] - best_of_others,
        "brier": errors.square().sum(dim=1),
    }

"""Scores of images by networks: predictions, ranks, probabilities and margins."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rib.base.progress import Progress
from rib.catalog.label_space import LabelSpace
from rib.data.dataset import PreparedDataset
from rib.models import device as devices
from rib.models.class_logits import class_logits, class_members, padded
from rib.models.images import Images, slices


# In inference mode autocast keeps no weights that it has cast.
@torch.no_grad()
def score(
    models: Sequence[Callable[[Tensor], Tensor]],
    inputs: Images,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    progress: Progress,
) -> list[dict[str, Tensor]]:
    """Score every network on every image, from the logits of the dataset's classes.

    Each batch is read once for all networks. Right answers of an image are its label and the
    classes that the label space also counts as right (`also`).

    Returns:
        For each network, tensors (n,), int64 or float32:

        - prediction: the class with the highest logit, the first among ties
        - rank: number of classes that beat the best right answer; a lower index beats an equal
          logit, and NaN beats all (0: correct)
        - log_prob: the log-softmax of the label
        - energy: the log-sum-exp of all classes, NaN if a logit is not finite
        - confidence: the softmax of the prediction, 0 to 1
        - margin: the highest logit of the right answers minus the highest of the other classes
        - brier: the sum over classes of (softmax - 1 for the label and 0 for others) squared, 0 to
          2 (Brier 1950; for several classes as in Ovadia et al. 2019, arXiv 1906.02530)
    """
    members = class_members(dataset.space, inputs.device)
    answers_of_classes = _right_answers(dataset.space, inputs.device)
    labels = torch.from_numpy(dataset.labels).to(inputs.device)
    scores_of_models: list[list[dict[str, Tensor]]] = [[] for _ in models]
    batches = slices(len(inputs), evaluation_batch_size)
    inputs.expect(batches)
    with devices.keep_casts(inputs.device):
        for batch in batches:
            pixels = inputs[batch]
            answers = answers_of_classes[labels[batch]]
            for model, scores_of_batches in zip(models, scores_of_models, strict=True):
                with devices.autocast(inputs.device):
                    logits = model(pixels)
                scores_of_batches.append(_summary(class_logits(logits.float(), members), answers))
            progress.update(len(pixels))
    return [_joined(scores_of_batches) for scores_of_batches in scores_of_models]


def _right_answers(space: LabelSpace, device: torch.device) -> Tensor:
    """Right answers for each class (C, K): row 3 is [3, 7] if 7 is right too for images of 3."""
    right_answers = []
    for label in range(len(space.keys)):
        also_right = space.also[label] if space.also else ()
        right_answers.append((label, *also_right))
    return padded(right_answers, device)


def _joined(scores_of_batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors (n,) on the CPU, such as {"rank": tensor}, from the tensors (N,) of batches."""
    joined_scores = {}
    for name in scores_of_batches[0]:
        tensors = [scores[name] for scores in scores_of_batches]
        joined_scores[name] = torch.cat(tensors).cpu()
    return joined_scores


def correct(
    model: nn.Module,
    inputs: Images,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    label: str,
) -> Tensor:
    """Whether a network is right on each image, (n,) bool on the CPU."""
    progress = Progress(desc=label, total=len(inputs), unit="image")
    (scores,) = score([model], inputs, dataset, evaluation_batch_size, progress)
    progress.close()
    return scores["rank"] == 0


def _summary(scores: Tensor, answers: Tensor) -> dict[str, Tensor]:
    """Scores {"rank": (N,), ...} from class logits (N, C) and right answers (N, K), label first."""
    labels = answers[:, :1]  # (N, 1)
    best_scores = scores.gather(1, answers).amax(dim=1)
    best_of_others = scores.masked_fill(_is_one_of(answers, scores), float("-inf")).amax(dim=1)
    prediction = scores.argmax(dim=1)  # the first among ties
    log_probs = scores.log_softmax(dim=1)
    energy = scores.logsumexp(dim=1)
    all_finite = scores.isfinite().all(dim=1)
    return {
        "prediction": prediction,
        "rank": _rank(scores, answers),
        "log_prob": log_probs.gather(1, labels)[:, 0],
        "energy": energy.where(all_finite, torch.nan),
        "confidence": log_probs.gather(1, prediction[:, None])[:, 0].exp(),
        "margin": best_scores - best_of_others,
        "brier": _brier_scores(log_probs, labels),
    }


def _rank(scores: Tensor, answers: Tensor) -> Tensor:
    """Number of classes that beat the best right answer, (N,); with NaN in an answer it is C."""
    _, number_of_classes = scores.shape
    scores_of_answers = scores.gather(1, answers)
    best_score = scores_of_answers.amax(dim=1, keepdim=True)
    # Among right answers with the same score, the lowest index.
    is_not_best = scores_of_answers != best_score
    best_answer = answers.masked_fill(is_not_best, number_of_classes).amin(dim=1, keepdim=True)
    classes = torch.arange(number_of_classes, device=scores.device)
    # No comparison with NaN is true. Counting the classes that don't beat the best answer, itself
    # among them, makes a NaN beat all.
    loses_tie_or_is_best = (best_score == scores) & (classes >= best_answer)
    does_not_beat_it = (best_score > scores) | loses_tie_or_is_best
    return number_of_classes - does_not_beat_it.sum(dim=1)


def _brier_scores(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Squared errors (N,) of probabilities, from their logarithms (N, C) and labels (N, 1)."""
    errors = log_probs.exp() - _is_one_of(labels, log_probs).to(log_probs.dtype)
    return errors.square().sum(dim=1)


def _is_one_of(columns: Tensor, scores: Tensor) -> Tensor:
    """(N, C) bool, true in the given columns (N, K): [[0, 2]] gives [[True, False, True]]."""
    # Compared rather than scattered, since CUDA's deterministic `scatter` sorts.
    _, number_of_columns = scores.shape
    all_columns = torch.arange(number_of_columns, device=scores.device)
    return (columns[:, :, None] == all_columns).any(dim=1)

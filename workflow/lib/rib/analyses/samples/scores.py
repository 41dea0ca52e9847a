"""Scores of images before and after fine-tuning, from their rows. No torch."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace

SCORES = [
    f"{score}_{when}"
    for score in ("top1", "top5", "nll", "brier")
    for when in ("before", "after", "change")
]
REAL = ["real_before", "real_after", "n_real"]
TOP = 5  # classes that count in top-5
VALIDATION_IMAGE = r"^ILSVRC2012_val_(\d{8})\.JPEG$"


def compared_scores(before: pd.DataFrame, after: pd.DataFrame, classes: int) -> np.ndarray:
    """Each of `SCORES` for each image, (12, n).

    Top-1 and top-5 (percent: 0 or 100) count any right answer (`also` of the label space), negative
    log-likelihood (nats) and Brier score (0 to 2) the label alone. Top-5 is NaN with fewer than six
    classes, where every prediction would be right.

    Args:
        before, after: rows of two runs on the same images: rank, log_prob, brier.
        classes: number of classes of the dataset.
    """
    scores_before = _scores(before, classes)  # (4, n)
    scores_after = _scores(after, classes)
    changes = scores_after - scores_before
    # Before, after and change of each score are neighbours, as in `SCORES`.
    by_score = np.stack([scores_before, scores_after, changes], axis=1)  # (4, 3, n)
    return by_score.reshape(len(SCORES), -1)


def _scores(rows: pd.DataFrame, classes: int) -> np.ndarray:
    """Top-1, top-5, negative log-likelihood and Brier score of each image, (4, n)."""
    rank = rows["rank"].to_numpy()
    top1 = 100.0 * (rank == 0)
    top5 = np.full(len(rank), np.nan)
    if classes > TOP:
        top5 = 100.0 * (rank < TOP)
    negative_log_likelihood = -rows["log_prob"].to_numpy().astype(np.float64)
    brier = rows["brier"].to_numpy().astype(np.float64)
    return np.array([top1, top5, negative_log_likelihood, brier])


def real_answers(
    dataset: str, image_ids: pd.Series, space: LabelSpace, real_labels: Sequence[Iterable[int]]
) -> np.ndarray:
    """Classes that are right by ReaL labels (several per image), (n, classes) bool.

    Args:
        image_ids: file names, such as ILSVRC2012_val_00000001.JPEG.
        real_labels: network outputs of each validation image, in the order of their numbers.

    Raises:
        UserError: the ReaL labels don't have an image.
    """
    digits = image_ids.str.extract(VALIDATION_IMAGE, expand=False)
    numbers = pd.to_numeric(digits).fillna(0).astype(int)
    has_labels = numbers.between(1, len(real_labels))
    if not has_labels.all():
        missing = image_ids[~has_labels].iloc[0]
        raise UserError(
            f"datasets.yaml, {dataset}: the ReaL labels have no image '{missing}'; they are for "
            "ILSVRC2012's validation images alone, so remove real_labels from the entry."
        )
    class_of_output = {}
    for label, outputs in enumerate(space.indices):
        for output in outputs:
            class_of_output[output] = label
    answers = np.zeros((len(numbers), len(space.keys)), bool)
    for answers_of_image, number in zip(answers, numbers, strict=True):
        for output in real_labels[number - 1]:
            if output in class_of_output:
                answers_of_image[class_of_output[output]] = True
    return answers


def real_accuracies(
    before: pd.DataFrame, after: pd.DataFrame, answers: np.ndarray | None
) -> tuple[float | None, float | None, int | None]:
    """Values of `REAL`: accuracies in percent over images with a ReaL label, and their number.

    All are None without such images.

    Args:
        before, after: rows of two runs on the same n images, with the column prediction.
        answers: (n, classes) bool, from `real_answers`; None for a dataset without ReaL labels.
    """
    if answers is None:
        return None, None, None
    is_labelled = answers.any(axis=1)
    if not is_labelled.any():
        return None, None, None
    accuracies = []
    for rows in (before, after):
        is_right = answers[np.arange(len(rows)), rows["prediction"]]
        accuracies.append(100 * float(is_right[is_labelled].mean()))
    return accuracies[0], accuracies[1], int(is_labelled.sum())

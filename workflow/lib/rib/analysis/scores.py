"""Scores of images before and after fine-tuning, from their rows. No torch."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rib.base.errors import UserError
from rib.config.label_space import LabelSpace

SCORES = [
    f"{name}_{part}"
    for name in ("top1", "top5", "nll", "brier")
    for part in ("before", "after", "change")
]
REAL = ["real_before", "real_after", "n_real"]
FIRST = 5  # classes that count in top-5
VALIDATION_IMAGE = r"^ILSVRC2012_val_(\d{8})\.JPEG$"


def compared_scores(before: pd.DataFrame, after: pd.DataFrame, classes: int) -> np.ndarray:
    """Each of `SCORES` for each image (12, n), from two runs' rows (rank, log_prob, brier); accuracies are 0 or 100.

    Top-1 and top-5 count any right answer (`also` of the label space), negative log-likelihood (nats) and Brier score (0
    to 2) the label alone. Top-5 is NaN with fewer than six classes, where every prediction would be right.
    """
    found = []
    for rows in (before, after):
        rank, log_prob, brier = (rows[name].to_numpy() for name in ("rank", "log_prob", "brier"))
        top5 = 100.0 * (rank < FIRST) if classes > FIRST else np.full(len(rank), np.nan)
        found.append(
            [100.0 * (rank == 0), top5, -log_prob.astype(np.float64), brier.astype(np.float64)]
        )
    was, now = np.array(found)
    return np.stack([was, now, now - was], axis=1).reshape(len(SCORES), -1)


def real_answers(
    dataset: str, image_ids: pd.Series, space: LabelSpace, known: Sequence[Iterable[int]]
) -> np.ndarray:
    """Classes that are right by ReaL labels (n, classes) bool, from the images' file names and `read_real_labels`.

    Raises:
        UserError: the ReaL labels don't have an image.
    """
    numbers = (
        pd.to_numeric(image_ids.str.extract(VALIDATION_IMAGE, expand=False)).fillna(0).astype(int)
    )
    if not (inside := numbers.between(1, len(known))).all():
        raise UserError(
            f"datasets.yaml, {dataset}: the ReaL labels have no image '{image_ids[~inside].iloc[0]}'; they are for "
            "ILSVRC2012's validation images alone, so remove real_labels from the entry."
        )
    classes = {output: label for label, row in enumerate(space.indices) for output in row}
    right = np.zeros((len(numbers), len(space.keys)), bool)
    for own, number in zip(right, numbers, strict=True):
        own[[classes[output] for output in known[number - 1] if output in classes]] = True
    return right


def real_accuracies(before: pd.DataFrame, after: pd.DataFrame, answers: np.ndarray | None) -> tuple:
    """Values of `REAL`: accuracy in percent among the images with a ReaL label, and their number; None without answers."""
    if answers is None or not (labelled := answers.any(axis=1)).any():
        return None, None, None
    right = (
        answers[np.arange(len(rows)), rows["prediction"]][labelled] for rows in (before, after)
    )
    return (*(100 * float(own.mean()) for own in right), int(labelled.sum()))

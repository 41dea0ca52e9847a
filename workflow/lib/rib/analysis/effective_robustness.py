"""Effective robustness: out-of-distribution accuracy beyond what in-distribution accuracy predicts. No torch.

For a model with accuracies acc_in and acc_out in and out of distribution,

    effective robustness = acc_out - b(acc_in)

in percentage points, where b is a line fitted to logit(acc_in) and logit(acc_out) of models that were trained only on
the in-distribution training set (Taori et al. 2020, arXiv 2007.00644, which also fits logits). Both datasets of a pair
have the same label space, for the reason in rib.analysis.baselines.in_distribution.

The confidence interval is that of the line's mean (ordinary least squares, Student's t). It does not include the
variation of a run's own accuracies.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import linregress, t

from rib.analysis.fit import read_table
from rib.base.errors import UserError
from rib.config.run import PRETRAINED, RUN_COLUMNS

FEWEST = 3  # minimum number of models for a line and its confidence interval
Accuracies = np.ndarray | pd.Series


class Line:
    """A line fitted to the logits of models' accuracies in and out of distribution.

    Args:
        inside, outside: (models,) percent, between 0 and 100.

    Attributes:
        slope, intercept, correlation: of the logits.
        models: number of models.
        centre, spread: mean of their in-distribution logits, and sum of squares about it.
        residual: standard deviation of their out-of-distribution logits about the line.
        lowest, highest: range of their in-distribution accuracies, in percent.

    Raises:
        UserError: there are fewer than three models, or all have the same accuracy.
    """

    def __init__(self, inside: Accuracies, outside: Accuracies):
        if len(inside) < FEWEST or np.ptp(inside) == 0:
            raise UserError(
                f"effective robustness needs {FEWEST} or more baseline models of different accuracy for each dataset; "
                "add rows to baselines.csv in the catalogue."
            )
        x, y = logit(np.asarray(inside) / 100), logit(np.asarray(outside) / 100)
        found = linregress(x, y)
        self.slope, self.intercept, self.correlation = found.slope, found.intercept, found.rvalue
        self.models, self.lowest, self.highest = len(x), np.min(inside), np.max(inside)
        self.centre, self.spread = x.mean(), ((x - x.mean()) ** 2).sum()
        self.residual = np.sqrt(
            ((y - (found.intercept + found.slope * x)) ** 2).sum() / (len(x) - 2)
        )

    def at(self, accuracy: Accuracies) -> np.ndarray:
        """Predicted out-of-distribution accuracies for in-distribution accuracies, in percent."""
        return 100 * expit(self.intercept + self.slope * logit(np.asarray(accuracy) / 100))

    def interval(self, accuracy: Accuracies, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Confidence interval of the line at in-distribution accuracies, in percent."""
        places = logit(np.asarray(accuracy) / 100)
        error = self.residual * np.sqrt(1 / self.models + (places - self.centre) ** 2 / self.spread)
        half = t.ppf((1 + confidence) / 2, self.models - 2) * error
        middle = self.intercept + self.slope * places
        return 100 * expit(middle - half), 100 * expit(middle + half)


def lines_of(baselines: pd.DataFrame) -> dict[str, Line]:
    """The line of each dataset, from the dataset, id and ood (percent) of each model."""
    return {
        name: Line(part["id"], part["ood"])
        for name, part in baselines.groupby("dataset", sort=False)
    }


def robustness_table(
    accuracy: pd.DataFrame, baselines: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Effective robustness of every fine-tuned run on every dataset that has a line.

    Args:
        accuracy: columns model, method, target, size, seed, dataset, n, accuracy (percent).
        baselines: columns dataset, in_distribution, id, ood (percent).

    Returns:
        The run's columns, dataset, in_distribution, and in percent: id_before, ood_before, rho_before, id_after,
        ood_after, rho_after, low, high (confidence interval of rho_after), change (rho_after - rho_before);
        extrapolated: whether the accuracy before or after is outside the range of the line's models.
    """
    half = (
        50 / accuracy["n"]
    )  # at least half an image is counted as right and as wrong, so that logits are finite
    scored = accuracy.assign(accuracy=accuracy["accuracy"].clip(half, 100 - half))
    tuned = scored["method"] != PRETRAINED
    after = scored[tuned].pivot(index=RUN_COLUMNS, columns="dataset", values="accuracy")
    before = scored[~tuned].pivot(index="model", columns="dataset", values="accuracy")
    before = before.loc[after.index.get_level_values("model")].set_axis(after.index)
    pairs = baselines.drop_duplicates("dataset").set_index("dataset")["in_distribution"]
    parts = []
    for name, line in lines_of(baselines).items():
        part = pd.DataFrame({"dataset": name, "in_distribution": pairs[name]}, index=after.index)
        for when, values in (("before", before), ("after", after)):
            part[f"id_{when}"], part[f"ood_{when}"] = values[pairs[name]], values[name]
            part[f"rho_{when}"] = values[name] - line.at(values[pairs[name]])
        low, high = line.interval(part["id_after"], confidence)
        part["low"], part["high"] = part["ood_after"] - high, part["ood_after"] - low
        part["change"] = part["rho_after"] - part["rho_before"]
        ends = part[["id_before", "id_after"]]
        part["extrapolated"] = (ends.lt(line.lowest) | ends.gt(line.highest)).any(axis=1)
        parts.append(part)
    return pd.concat(parts).reset_index().sort_values([*RUN_COLUMNS, "dataset"], kind="stable")


def line_table(baselines: pd.DataFrame) -> pd.DataFrame:
    """Rows of dataset, in_distribution, models, slope, intercept, correlation, lowest, highest (percent)."""
    lines = lines_of(baselines).values()
    columns = ["models", "slope", "intercept", "correlation", "lowest", "highest"]
    pairs = baselines[["dataset", "in_distribution"]].drop_duplicates("dataset")
    return pairs.assign(**{key: [getattr(line, key) for line in lines] for key in columns})


def robustness_tables(
    *, accuracy: Path, baselines: Iterable[Mapping], confidence: float
) -> dict[str, pd.DataFrame]:
    """`robustness_table` as `effective_robustness`, and `line_table` as `baseline_lines`.

    Args:
        baselines: model, dataset, in_distribution, id, ood (percent) of each published pair of accuracies.
    """
    stated = pd.DataFrame(baselines)
    robustness = robustness_table(read_table(accuracy), stated, confidence)
    return {"effective_robustness": robustness, "baseline_lines": line_table(stated)}

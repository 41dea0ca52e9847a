"""Effective robustness: OOD accuracy beyond the prediction from in-distribution accuracy. No torch.

For a model with accuracies acc_in and acc_out in and out of distribution,

    effective robustness = acc_out - b(acc_in)

in percentage points, where b is a line fitted to logit(acc_in) and logit(acc_out) of models that
were trained only on the in-distribution training set (Taori et al. 2020, arXiv 2007.00644, which
also fits logits). Both datasets of a pair have the same label space, for the reason in
rib.analyses.effective_robustness.baselines.in_distribution.

The confidence interval is for the line's mean (ordinary least squares, Student's t). It does not
include the variation of a run's accuracies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import linregress, t

from rib.base.errors import UserError
from rib.schema.run import PRETRAINED, RUN_COLUMNS
from rib.statistics.inputs import Inputs

FEWEST = 3  # minimum number of models for a line and its confidence interval
Accuracies = np.ndarray | pd.Series


class Line:
    """A line fitted to the logits of models' accuracies in and out of distribution.

    It predicts the accuracy of a network out of distribution from its accuracy in distribution.

    Args:
        inside, outside: (models,) percent, between 0 and 100.

    Attributes:
        slope, intercept, correlation: of the logits.
        models: number of models.
        centre, spread: mean of the in-distribution logits, and sum of squares about it.
        residual: standard deviation of the out-of-distribution logits about the line.
        lowest, highest: range of the in-distribution accuracies, percent.

    Raises:
        UserError: there are fewer than three models, or all have the same accuracy.
    """

    def __init__(self, inside: Accuracies, outside: Accuracies):
        if len(inside) < FEWEST or np.ptp(inside) == 0:
            raise UserError(
                f"effective robustness needs {FEWEST} or more baseline models of different "
                "accuracy for each dataset; add rows to published.csv in your catalogue folder, of "
                "models whose entries say baseline."
            )
        x = logit(np.asarray(inside) / 100)
        y = logit(np.asarray(outside) / 100)
        regression = linregress(x, y)
        self.slope = regression.slope
        self.intercept = regression.intercept
        self.correlation = regression.rvalue
        self.models = len(x)
        self.lowest = np.min(inside)
        self.highest = np.max(inside)
        self.centre = x.mean()
        self.spread = ((x - self.centre) ** 2).sum()
        residuals = y - (self.intercept + self.slope * x)
        self.residual = np.sqrt((residuals**2).sum() / (self.models - 2))

    def at(self, accuracy: Accuracies) -> np.ndarray:
        """Predicted out-of-distribution accuracies for in-distribution accuracies, percent."""
        x = logit(np.asarray(accuracy) / 100)
        return 100 * expit(self.intercept + self.slope * x)

    def interval(self, accuracy: Accuracies, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the line's confidence interval at in-distribution accuracies, all percent."""
        x = logit(np.asarray(accuracy) / 100)
        error = self.residual * np.sqrt(1 / self.models + (x - self.centre) ** 2 / self.spread)
        half_width = t.ppf((1 + confidence) / 2, self.models - 2) * error
        predicted = self.intercept + self.slope * x
        return 100 * expit(predicted - half_width), 100 * expit(predicted + half_width)


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: effective_robustness (by run and dataset), baseline_lines."""
    return robustness_tables(inputs.table("accuracy"), **inputs.params)


def lines_of(baselines: pd.DataFrame) -> dict[str, Line]:
    """Line of each out-of-distribution dataset, such as {"imagenet_v2": Line(...)}.

    Args:
        baselines: columns dataset, id and ood (percent), one row per model and dataset.
    """
    return {
        str(dataset): Line(models["id"], models["ood"])
        for dataset, models in baselines.groupby("dataset", sort=False)
    }


def robustness_table(
    accuracy: pd.DataFrame, baselines: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Effective robustness (rho) of every fine-tuned run on every dataset that has a line.

    Args:
        accuracy: columns model, method, target, size, seed, dataset, n, accuracy (percent).
        baselines: columns dataset, in_distribution, id (accuracy in distribution) and ood (on the
            dataset), in percent; one row per baseline model and dataset.

    Returns:
        The run's columns, dataset, in_distribution, and in percent: id_before, ood_before,
        rho_before, id_after, ood_after, rho_after, low, high (confidence interval of rho_after),
        change (rho_after - rho_before); extrapolated: whether the accuracy before or after is
        outside the range of the line's models.
    """
    before, after = _accuracies_before_and_after(accuracy)
    in_distribution = baselines.drop_duplicates("dataset").set_index("dataset")["in_distribution"]
    tables = []
    for dataset, line in lines_of(baselines).items():
        inside = in_distribution[dataset]  # such as imagenet
        robustness = pd.DataFrame(
            {"dataset": dataset, "in_distribution": inside}, index=after.index
        )
        for when, accuracies in (("before", before), ("after", after)):
            predicted = line.at(accuracies[inside])
            robustness[f"id_{when}"] = accuracies[inside]
            robustness[f"ood_{when}"] = accuracies[dataset]
            robustness[f"rho_{when}"] = accuracies[dataset] - predicted
        # Robustness is lowest where the line is highest.
        line_low, line_high = line.interval(robustness["id_after"], confidence)
        robustness["low"] = robustness["ood_after"] - line_high
        robustness["high"] = robustness["ood_after"] - line_low
        robustness["change"] = robustness["rho_after"] - robustness["rho_before"]
        accuracies_inside = robustness[["id_before", "id_after"]]
        is_outside = accuracies_inside.lt(line.lowest) | accuracies_inside.gt(line.highest)
        robustness["extrapolated"] = is_outside.any(axis=1)
        tables.append(robustness)
    rows = pd.concat(tables).reset_index()
    return rows.sort_values([*RUN_COLUMNS, "dataset"], kind="stable")


def _accuracies_before_and_after(accuracy: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies in percent: in both tables, a row per fine-tuned run and a column per dataset."""
    # Half an image at least counts as right and as wrong, so logits are finite.
    half_image = 50 / accuracy["n"]
    clipped = accuracy.assign(accuracy=accuracy["accuracy"].clip(half_image, 100 - half_image))
    is_pretrained = clipped["method"] == PRETRAINED
    after = clipped[~is_pretrained].pivot(index=RUN_COLUMNS, columns="dataset", values="accuracy")
    of_models = clipped[is_pretrained].pivot(index="model", columns="dataset", values="accuracy")
    model_of_runs = after.index.get_level_values("model")
    before = of_models.loc[model_of_runs].set_axis(after.index)
    return before, after


def line_table(baselines: pd.DataFrame) -> pd.DataFrame:
    """The lines: dataset, in_distribution, models, slope, intercept, correlation, lowest, highest.

    lowest and highest are in percent. A last column, source, names where the accuracies are
    published.

    Args:
        baselines: columns dataset, in_distribution, id, ood (percent), source, one row per model
            and dataset.
    """
    lines = list(lines_of(baselines).values())  # in the order of the datasets
    datasets = baselines[["dataset", "in_distribution"]].drop_duplicates("dataset")
    return datasets.assign(
        models=[line.models for line in lines],
        slope=[line.slope for line in lines],
        intercept=[line.intercept for line in lines],
        correlation=[line.correlation for line in lines],
        lowest=[line.lowest for line in lines],
        highest=[line.highest for line in lines],
        source=[
            "; ".join(of_dataset["source"].drop_duplicates())
            for _, of_dataset in baselines.groupby("dataset", sort=False)
        ],
    )


def robustness_tables(
    accuracy: pd.DataFrame, baselines: Sequence[Mapping[str, Any]], confidence: float
) -> dict[str, pd.DataFrame]:
    """Tables `effective_robustness` (of runs) and `baseline_lines` (fitted to other models).

    Args:
        accuracy: columns model, method, target, size, seed, dataset, n, accuracy (percent).
        baselines: one mapping per baseline model and dataset, such as {"model": "resnet50",
            "dataset": "imagenet_v2", "in_distribution": "imagenet", "id": 76.1, "ood": 63.2,
            "source": "timm results (4e5207c7)"}.
    """
    baseline_table = pd.DataFrame(list(baselines))
    robustness = robustness_table(accuracy, baseline_table, confidence)
    return {"effective_robustness": robustness, "baseline_lines": line_table(baseline_table)}

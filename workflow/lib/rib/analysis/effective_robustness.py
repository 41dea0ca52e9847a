"""Effective robustness: out-of-distribution accuracy beyond what in-distribution accuracy predicts. No torch.

For a model with accuracies acc_in and acc_out in and out of distribution,

    effective robustness = acc_out - b(acc_in)

in percentage points, where b is a line fitted to logit(acc_in) and logit(acc_out) of models that were trained only on
the in-distribution training set (Taori et al. 2020, arXiv 2007.00644, which also fits logits). Both datasets of a pair
have the same label space (rib.analysis.baselines.in_distribution). Otherwise, a run that lost classes it was not
fine-tuned on would appear robust if acc_in counts classes that acc_out doesn't.

The confidence interval is that of the line's mean (ordinary least squares, Student's t). It does not include the
variation of a run's own accuracies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import linregress, t

from rib.base.errors import UserError
from rib.base.files import write_table
from rib.config.run import PRETRAINED, RUN_COLUMNS

FEWEST = 3  # minimum number of models for a line and its confidence interval
Accuracies = np.ndarray | pd.Series


@dataclass(frozen=True)
class Line:
    """A line between logits of accuracies.

    Attributes:
        slope, intercept: parameters of the line.
        correlation: Pearson correlation of the logits.
        models: number of models in the fit.
        centre, spread: mean of their in-distribution logits, and sum of squares about it.
        residual: standard deviation of their out-of-distribution logits about the line.
        lowest, highest: range of their in-distribution accuracies, in percent.
    """

    slope: float
    intercept: float
    correlation: float
    models: int
    centre: float
    spread: float
    residual: float
    lowest: float
    highest: float

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


def fit(inside: Accuracies, outside: Accuracies) -> Line:
    """Fit a line to models' accuracies.

    Args:
        inside: (models,) in distribution, percent, between 0 and 100.
        outside: (models,) out of distribution, percent, between 0 and 100.

    Raises:
        UserError: there are fewer than three models, or all have the same accuracy.
    """
    if len(inside) < FEWEST or np.ptp(inside) == 0:
        raise UserError(
            f"effective robustness needs {FEWEST} or more baseline models of different accuracy for each dataset; add "
            "rows to baselines.csv in the catalogue."
        )
    x, y = logit(np.asarray(inside) / 100), logit(np.asarray(outside) / 100)
    found = linregress(x, y)
    residuals = y - (found.intercept + found.slope * x)
    return Line(
        slope=float(found.slope),
        intercept=float(found.intercept),
        correlation=float(found.rvalue),
        models=len(x),
        centre=float(x.mean()),
        spread=float(((x - x.mean()) ** 2).sum()),
        residual=float(np.sqrt((residuals**2).sum() / (len(x) - 2))),
        lowest=float(np.min(inside)),
        highest=float(np.max(inside)),
    )


def lines_of(baselines: pd.DataFrame) -> dict[str, Line]:
    """The line of each dataset.

    Args:
        baselines: columns dataset, id, ood (percent), one row per model and dataset.
    """
    return {name: fit(part["id"], part["ood"]) for name, part in baselines.groupby("dataset", sort=False)}


def within(accuracy: pd.Series, n: pd.Series) -> pd.Series:
    """Accuracies (percent) clipped to finite logits: at least half an image of n is counted as right and as wrong."""
    return accuracy.clip(50 / n, 100 - 50 / n)


def robustness_table(accuracy: pd.DataFrame, baselines: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Effective robustness of every fine-tuned run on every dataset that has a line.

    Args:
        accuracy: columns model, method, target, size, seed, dataset, n, accuracy (percent).
        baselines: columns dataset, in_distribution, id, ood (percent).

    Returns:
        The run's columns, dataset, in_distribution, and in percent: id_before, ood_before, rho_before, id_after,
        ood_after, rho_after, low, high (confidence interval of rho_after), change (rho_after - rho_before);
        extrapolated: whether the accuracy before or after is outside the range of the line's models.
    """
    scored = accuracy.assign(accuracy=within(accuracy["accuracy"], accuracy["n"]))
    before = scored[scored["method"] == PRETRAINED].set_index(["model", "dataset"])["accuracy"]
    after = scored[scored["method"] != PRETRAINED].set_index([*RUN_COLUMNS, "dataset"])["accuracy"]
    pairs = baselines.drop_duplicates("dataset").set_index("dataset")["in_distribution"]
    parts = []
    for name, line in lines_of(baselines).items():
        inside = pairs[name]
        both = pd.DataFrame(
            {"id_after": after.xs(inside, level="dataset"), "ood_after": after.xs(name, level="dataset")}
        ).reset_index()
        for when, dataset in (("id_before", inside), ("ood_before", name)):
            both[when] = before.loc[[(model, dataset) for model in both["model"]]].to_numpy()
        for when in ("before", "after"):
            both[f"rho_{when}"] = both[f"ood_{when}"] - line.at(both[f"id_{when}"])
        low, high = line.interval(both["id_after"], confidence)
        ends = both[["id_before", "id_after"]]
        parts.append(
            both.assign(
                dataset=name,
                in_distribution=inside,
                low=both["ood_after"] - high,
                high=both["ood_after"] - low,
                change=both["rho_after"] - both["rho_before"],
                extrapolated=(ends.lt(line.lowest) | ends.gt(line.highest)).any(axis=1),
            )
        )
    columns = [f"{what}_{when}" for when in ("before", "after") for what in ("id", "ood", "rho")]
    columns = [*RUN_COLUMNS, "dataset", "in_distribution", *columns, "low", "high", "change", "extrapolated"]
    return pd.concat(parts, ignore_index=True)[columns].sort_values([*RUN_COLUMNS, "dataset"], kind="stable")


def line_table(baselines: pd.DataFrame) -> pd.DataFrame:
    """Rows of dataset, in_distribution, models, slope, intercept, correlation, lowest, highest (percent)."""
    pairs = baselines.drop_duplicates("dataset").set_index("dataset")["in_distribution"]
    columns = ["models", "slope", "intercept", "correlation", "lowest", "highest"]
    return pd.DataFrame(
        [
            {"dataset": name, "in_distribution": pairs[name], **{key: getattr(line, key) for key in columns}}
            for name, line in lines_of(baselines).items()
        ]
    )


def write_tables(
    *,
    accuracy: Path,
    baselines: Iterable[Mapping],
    confidence: float,
    conditions: str,
    effective_robustness: Path,
    baseline_lines: Path,
) -> None:
    """Write both tables.

    Args:
        accuracy: CSV of rib.analysis.tables.accuracy_table.
        baselines: model, dataset, in_distribution, id, ood (percent) of each published pair of accuracies.
        effective_robustness: written as CSV, see `robustness_table`.
        baseline_lines: written as CSV, see `line_table`.
    """
    stated = pd.DataFrame(baselines)
    tables = {
        effective_robustness: robustness_table(pd.read_csv(accuracy, dtype={"size": str}), stated, confidence),
        baseline_lines: line_table(stated),
    }
    for path, table in tables.items():
        write_table(path, table.assign(conditions=conditions))

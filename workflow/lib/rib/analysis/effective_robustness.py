"""Effective robustness: accuracy out of distribution beyond what accuracy in distribution leads one to expect. No torch.

With acc_in and acc_out a model's accuracies in and out of distribution, and b the line that models trained on the
in-distribution training set alone follow, fitted between logit(acc_in) and logit(acc_out):

    effective robustness = acc_out - b(acc_in)

in percentage points (Taori et al. 2020, arXiv 2007.00644, whose fits are in logits too). Each pair of
datasets is scored among the same classes (Grid.in_distribution): a run that was fine-tuned on some classes may lose the
others, which would pass for robustness where acc_in counts classes that acc_out doesn't.

The line's interval is that of its mean (ordinary least squares, Student's t); how much a run's own accuracies vary is not
in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import linregress, t

from rib.io import UserError, write_table
from rib.metrics import RUN
from rib.runs import PRETRAINED

FEWEST = 3  # models that a line and its interval take
Accuracies = np.ndarray | pd.Series


@dataclass(frozen=True)
class Line:
    """A line between logits of accuracies.

    Attributes:
        slope, intercept: of the line.
        correlation: Pearson's, between the logits.
        models: how many it was fitted on.
        centre, spread: mean of their logits in distribution, and the sum of squares about it.
        residual: standard deviation of their logits out of distribution about the line.
        lowest, highest: their accuracies in distribution, in percent.
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
        """Accuracy out of distribution that the line gives to ones in distribution, in percent."""
        return 100 * expit(self.intercept + self.slope * logit(np.asarray(accuracy) / 100))

    def interval(self, accuracy: Accuracies, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the line at accuracies in distribution, in percent."""
        places = logit(np.asarray(accuracy) / 100)
        error = self.residual * np.sqrt(1 / self.models + (places - self.centre) ** 2 / self.spread)
        half = t.ppf((1 + confidence) / 2, self.models - 2) * error
        middle = self.intercept + self.slope * places
        return 100 * expit(middle - half), 100 * expit(middle + half)


def fit(inside: Accuracies, outside: Accuracies) -> Line:
    """The line of models' accuracies.

    Args:
        inside: (models,) in distribution, percent, between 0 and 100.
        outside: (models,) out of distribution, likewise.

    Raises:
        UserError: there are fewer than three models, or all have one accuracy.
    """
    if len(inside) < FEWEST or np.ptp(inside) == 0:
        raise UserError(
            f"effective robustness takes {FEWEST} or more baseline models of different accuracy for each dataset; add rows "
            "to baselines.csv of the catalogue."
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
        baselines: columns dataset, id, ood (percent): a line per model and dataset.
    """
    return {name: fit(part["id"], part["ood"]) for name, part in baselines.groupby("dataset", sort=False)}


def within(accuracy: pd.Series, n: pd.Series) -> pd.Series:
    """Accuracies (percent) of which the logit is finite: none or all of n images right count as half an image less."""
    return accuracy.clip(50 / n, 100 - 50 / n)


def robustness_table(accuracy: pd.DataFrame, baselines: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Effective robustness of every fine-tuned run on every dataset that has a line.

    Args:
        accuracy: columns model, method, target, size, seed, dataset, n, accuracy (percent).
        baselines: columns dataset, in_distribution, id, ood (percent).
        confidence: coverage of the line's interval, between 0 and 1.

    Returns:
        The run's columns, dataset, in_distribution, and in percent: id_before, ood_before, rho_before, id_after,
        ood_after, rho_after, low, high (of rho_after, by the line's interval), change (rho_after - rho_before);
        extrapolated: whether a line is read off outside its models' accuracies, before or after.
    """
    scored = accuracy.assign(accuracy=within(accuracy["accuracy"], accuracy["n"]))
    before = scored[scored["method"] == PRETRAINED].set_index(["model", "dataset"])["accuracy"]
    after = scored[scored["method"] != PRETRAINED].set_index([*RUN, "dataset"])["accuracy"]
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
    columns = [*RUN, "dataset", "in_distribution", *columns, "low", "high", "change", "extrapolated"]
    return pd.concat(parts, ignore_index=True)[columns].sort_values([*RUN, "dataset"], kind="stable")


def line_table(baselines: pd.DataFrame) -> pd.DataFrame:
    """A line per dataset: dataset, in_distribution, models, slope, intercept, correlation, lowest, highest (percent)."""
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
        accuracy: CSV of rib.metrics.accuracy_table.
        baselines: model, dataset, in_distribution, id, ood (percent) of each published pair.
        confidence: coverage of the line's interval, between 0 and 1.
        conditions: what the numbers hang on besides their columns; the last column of each table.
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

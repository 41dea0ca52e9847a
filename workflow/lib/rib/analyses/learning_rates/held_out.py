"""Choice of learning rates from a sweep, on the select splits of the targets. No torch.

A select split is the part of a dataset that is kept for choices.

This is the rule of protocol held_out, one for all methods. For each model, method and recipe:

    accuracy  of a rate: the mean over targets of its accuracy on the target's select split, which
              is the mean over the runs with that rate (sizes and seeds)
    best      the rate with the highest accuracy, the smallest of equal ones. For a method that can
              fit its training images, only rates count at which every run reaches the threshold
    chosen    the smallest of these rates that is less accurate than the best by no more than one
              standard error of the difference (Breiman et al. 1984, Classification and Regression
              Trees, section 3.4.3, with the error of the paired difference in place of the best's)

The standard error is over objects. For target t with n_t images, n_to of them of object o, let d_to
be how many more of these are right than with the best rate. With T targets of m_t objects,

    D_t  = sum over o of d_to / n_t
    D    = mean over t of D_t
    SE^2 = sum over o of (sum over t of sqrt(m_t / (m_t - 1)) (d_to - D_t n_to) / (n_t T))^2

If each object is one image of one target, this is the sum over targets of s_t^2 / n_t / T^2, where
s_t^2 is the sample variance of d_to: images of targets are independent of each other. Targets and
trained networks are fixed; the error leaves out what other seeds would change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rib.analyses.learning_rates.by_loss import GROUP, SweptMethod
from rib.base.errors import UserError
from rib.base.files import read_json
from rib.schema.layout import Layout
from rib.schema.run import Run
from rib.statistics.counts import Counts, RowFiles
from rib.statistics.select_splits import count_on_select_splits

DECIMALS = 9  # percentage points; a smaller difference is a rounding error
NOT_REQUIRED = "not required"  # in the column all_fit
FEWEST_OBJECTS = 2  # in a select split, for a standard error
TABLE = [
    *GROUP,
    "lr",
    "accuracy",
    "difference",
    "standard_error",
    "lowest_fit",
    "all_fit",
    "chosen",
    "at_edge",
]


@dataclass(frozen=True)
class Sweep:
    """Variants of a method on one model that differ in their learning rate."""

    model: str
    swept: SweptMethod
    variant_of_rate: Mapping[float, str]  # {0.001: "ft-lr0.001"}, ascending rates


@dataclass(frozen=True)
class SelectSplit:
    """Right answers at each learning rate on the select split (for choices) of one target."""

    correct: np.ndarray  # (rates, objects) right answers, mean over runs
    images: np.ndarray  # (objects,)
    # (objects,) index of each object, the same on all targets; equal if its images have several
    # classes
    objects: np.ndarray


@dataclass(frozen=True)
class ChosenRate:
    """A choice among the learning rates of a sweep, given by their position in it."""

    best: int | None  # None if no rate is eligible
    chosen: int | None
    accuracies: np.ndarray  # (rates,) percent
    differences: np.ndarray  # (rates,) from the best rate, percentage points; NaN without it
    standard_errors: np.ndarray  # (rates,) of the differences, percentage points; NaN without it


def choose_on_select_splits(
    *,
    manifests: Sequence[Path],
    select_files: RowFiles,
    swept_methods: Mapping[str, SweptMethod],
    targets: Sequence[str],
    threshold: float | None,
) -> pd.DataFrame:
    """The learning rates that were tried, and the chosen one, with the columns `TABLE`.

    accuracy, difference (from the best rate), standard_error and lowest_fit (of the runs) are in
    percent. all_fit says whether every run reaches the threshold, or `not required`. If no rate of
    a method is eligible, none is chosen, and there is no difference. at_edge is yes for the best
    and the chosen rate if it is the smallest or largest.

    Args:
        manifests: manifest.json of the fine-tuning runs, with their fit.
        select_files: rows of these runs on the select splits of their targets, and indexes of the
            targets.
        swept_methods: by name of the method in runs.
        threshold: fit (0 to 1) that every run of a method that can fit must reach; None for no
            threshold.

    Raises:
        UserError: a select split has too few objects.
    """
    counts = count_on_select_splits(select_files)
    _refuse_small_select_splits(counts, targets)
    fit_of_runs = {Layout.run_of(manifest): read_json(manifest)["fit"] for manifest in manifests}
    tables = []
    for sweep in _sweeps(fit_of_runs, swept_methods):
        threshold_of_sweep = threshold if sweep.swept.can_fit else None
        splits = [_select_split(counts, target, sweep) for target in counts.datasets]
        tables.append(_table_of_sweep(sweep, splits, fit_of_runs, threshold_of_sweep))
    return pd.concat(tables, ignore_index=True)


def _refuse_small_select_splits(counts: Counts, targets: Iterable[str]) -> None:
    """Raises a UserError if a standard error, which needs two objects, can't be computed."""
    for target in targets:
        objects = 0
        if target in counts.datasets:
            objects = len(np.unique(counts.object_indices[target]))
        if objects < FEWEST_OBJECTS:
            raise UserError(
                f"learning_rates: the select split of '{target}' has {objects} objects, too few to "
                "choose by; raise split.select in config, or leave it out of targets."
            )


def _sweeps(runs: Iterable[Run], swept_methods: Mapping[str, SweptMethod]) -> list[Sweep]:
    """One sweep for each model, method and recipe of the runs, sorted by these."""
    variants_of_sweeps: dict[tuple[str, str, str], dict[float, str]] = {}
    for run in runs:
        swept = swept_methods[run.method]
        sweep_key = (run.model, swept.method, swept.recipe)
        rate = swept.lr[run.model]
        variants_of_sweeps.setdefault(sweep_key, {})[rate] = run.method
    sweeps = []
    for (model, _, _), variants in sorted(variants_of_sweeps.items()):
        variant_of_rate = dict(sorted(variants.items()))
        first_variant = next(iter(variant_of_rate.values()))
        sweeps.append(Sweep(model, swept_methods[first_variant], variant_of_rate))
    return sweeps


def _lowest_fit(fit_of_runs: Mapping[Run, float], model: str, variant: str) -> float:
    """Lowest fit (accuracy on training images, 0 to 1) over a variant's runs on a model."""
    return min(
        fit for run, fit in fit_of_runs.items() if (run.model, run.method) == (model, variant)
    )


def _select_split(counts: Counts, target: str, sweep: Sweep) -> SelectSplit:
    """Right answers at each rate of a sweep on the select split of a target, mean over runs."""
    correct_of_rates = []
    for variant in sweep.variant_of_rate.values():
        states = []  # indices of the variant's runs, which differ in size and seed
        for i, state in enumerate(counts.states):
            if state.run.model == sweep.model and state.run.method == variant:
                states.append(i)
        correct_of_runs = counts.correct[target][states]
        correct_of_rates.append(correct_of_runs.mean(axis=0))
    return SelectSplit(
        correct=np.array(correct_of_rates),
        images=counts.images[target],
        objects=counts.object_indices[target],
    )


def choose_rate(splits: Sequence[SelectSplit], is_eligible: np.ndarray) -> ChosenRate:
    """Choose the smallest eligible rate within one standard error of the best eligible one.

    Args:
        splits: of each target, with rates in ascending order.
        is_eligible: (rates,) bool, such as whether every run fits its training images.
    """
    accuracies = mean_accuracies(splits)
    if not is_eligible.any():
        unknown = np.full(len(accuracies), np.nan)
        return ChosenRate(
            best=None,
            chosen=None,
            accuracies=accuracies,
            differences=unknown,
            standard_errors=unknown,
        )
    eligible_accuracies = np.where(is_eligible, np.round(accuracies, DECIMALS), -np.inf)
    best = int(eligible_accuracies.argmax())  # the smallest of equal ones
    differences, standard_errors = paired_differences(splits, best)
    is_within_one_error = np.round(differences + standard_errors, DECIMALS) >= 0
    candidates = np.flatnonzero(is_eligible & is_within_one_error)
    return ChosenRate(
        best=best,
        chosen=int(candidates[0]),
        accuracies=accuracies,
        differences=differences,
        standard_errors=standard_errors,
    )


def mean_accuracies(splits: Sequence[SelectSplit]) -> np.ndarray:
    """Mean over targets of the accuracy at each rate, (rates,) percent."""
    accuracies = [split.correct.sum(axis=1) / split.images.sum() for split in splits]
    return 100 * np.mean(accuracies, axis=0)


def paired_differences(splits: Sequence[SelectSplit], best: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy at each rate minus accuracy at the best one, and the difference's standard error.

    Both (D and SE in the module) are (rates,) percentage points; the best rate has zeros.

    Args:
        splits: of each target, with at least two objects.
        best: index of the best rate.
    """
    targets = len(splits)
    rates = len(splits[0].correct)
    number_of_objects = 1 + max(int(split.objects.max()) for split in splits)
    differences = np.zeros(rates)
    # (objects, rates): the term of each object in SE^2, before squaring.
    contributions = np.zeros((number_of_objects, rates))
    for split in splits:
        images = split.images.sum()
        more_correct = split.correct - split.correct[best]  # (rates, objects), d_to
        difference = more_correct.sum(axis=1) / images  # (rates,), D_t
        residuals = more_correct - difference[:, None] * split.images
        objects = len(np.unique(split.objects))
        weight = np.sqrt(objects / (objects - 1)) / (images * targets)
        # An object with images of several classes occurs several times.
        np.add.at(contributions, split.objects, weight * residuals.T)
        differences += difference / targets
    standard_errors = np.sqrt((contributions**2).sum(axis=0))
    return 100 * differences, 100 * standard_errors


def _table_of_sweep(
    sweep: Sweep,
    splits: Sequence[SelectSplit],
    fit_of_runs: Mapping[Run, float],
    threshold: float | None,
) -> pd.DataFrame:
    """One row per rate, columns `TABLE`; every run must reach the threshold, if there is one."""
    rates = list(sweep.variant_of_rate)
    lowest_fits = [
        _lowest_fit(fit_of_runs, sweep.model, variant) for variant in sweep.variant_of_rate.values()
    ]
    if threshold is None:
        is_eligible = [True] * len(rates)
        all_fit = [NOT_REQUIRED] * len(rates)
    else:
        is_eligible = [fit >= threshold for fit in lowest_fits]
        all_fit = ["yes" if fits else "no" for fits in is_eligible]
    choice = choose_rate(splits, np.array(is_eligible))
    edges = (0, len(rates) - 1)
    rows = []
    for i, rate in enumerate(rates):
        is_at_edge = i in edges and i in (choice.best, choice.chosen)
        row = {
            "model": sweep.model,
            "method": sweep.swept.method,
            "recipe": sweep.swept.recipe,
            "lr": rate,
            "accuracy": choice.accuracies[i],
            "difference": choice.differences[i],
            "standard_error": choice.standard_errors[i],
            "lowest_fit": 100 * lowest_fits[i],
            "all_fit": all_fit[i],
            "chosen": "yes" if i == choice.chosen else "no",
            "at_edge": "yes" if is_at_edge else "no",
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=TABLE)


def warnings_on(table: pd.DataFrame, threshold: float | None) -> list[str]:
    """Sentences on sweeps without a choice, and on rates at the edge of their sweep.

    Args:
        table: columns `TABLE`.
        threshold: fit (0 to 1) that every run of a method that can fit must reach.
    """
    sentences = []
    for (model, method, recipe), sweep in table.groupby(GROUP, sort=False):
        subject = f"{method} with recipe {recipe} on {model}"
        if (sweep["chosen"] == "no").all():
            assert threshold is not None  # otherwise every rate is eligible
            sentences.append(f"{subject}: {_why_none_is_chosen(sweep, threshold)}")
        rates = sweep["lr"].tolist()
        for row in sweep[sweep["at_edge"] == "yes"].to_dict("records"):
            adjective = "chosen" if row["chosen"] == "yes" else "best"
            sentences.append(f"{subject}: {_advice_at_edge(row['lr'], adjective, rates)}")
    return sentences


def _why_none_is_chosen(sweep: pd.DataFrame, threshold: float) -> str:
    """Rest of a sentence: `no learning rate is chosen, since at none of those tried ...`."""
    tried = ", ".join(
        f"{row['lr']:g} (lowest fit {row['lowest_fit']:.1f} %)" for row in sweep.to_dict("records")
    )
    return (
        f"no learning rate is chosen, since at none of those tried every run fits "
        f"{100 * threshold:g} % of its training images: {tried}; try others in method_settings, or "
        "train longer."
    )


def _advice_at_edge(rate: float, adjective: str, rates: Sequence[float]) -> str:
    """Rest of a sentence that suggests 0.009 if 0.003 was the largest rate, after 0.001."""
    if len(rates) == 1:
        return f"only the learning rate {rate:g} was tried; list several in method_settings."
    if rate == rates[-1]:
        edge = "largest"
        neighbour = rates[-2]
    else:
        edge = "smallest"
        neighbour = rates[1]
    further_rate = rate * rate / neighbour
    return (
        f"the {adjective} learning rate {rate:g} is the {edge} that was tried; add "
        f"{further_rate:.2g} to those in method_settings."
    )


def family_recipes(
    table: pd.DataFrame,
    *,
    swept_methods: Mapping[str, SweptMethod],
    family: str,
    targets: Iterable[str],
    seeds: Iterable[int],
) -> str:
    """The chosen rates as YAML with comments, to paste into the file of a family.

    An example, without comments, is `recipes: {paper: {lora: {lr: {net: 0.001}}}}`.

    Variants of an entry that differ in something else than the rate, such as lora-rank4 and
    lora-rank8, are only named in a comment: a family has one rate for all of them.

    Args:
        table: columns `TABLE`.
        swept_methods: by name of the method in runs.
    """
    entry_of_method = {swept.method: swept.entry for swept in swept_methods.values()}
    methods_of_entries: dict[tuple[str, str], set[str]] = {}
    for swept in swept_methods.values():
        methods_of_entries.setdefault((swept.recipe, swept.entry), set()).add(swept.method)
    lines = [
        f"# For families/{family}.yaml; keep the other settings of a method there, such as epochs.",
        f"# Chosen on the select splits of {', '.join(targets)} (protocol held_out), "
        f"seeds {', '.join(map(str, seeds))}.",
    ]
    recipes: dict[str, dict[str, Any]] = {}
    for _, sweep in table.groupby(GROUP, sort=False):
        first_row = sweep.iloc[0]
        model = first_row["model"]
        method = first_row["method"]
        recipe = first_row["recipe"]
        entry = entry_of_method[method]
        chosen_rates = sweep.loc[sweep["chosen"] == "yes", "lr"].tolist()
        if not chosen_rates:
            lines.append(f"# no rate: {method} with recipe {recipe} on {model}")
            continue
        (rate,) = chosen_rates
        if len(methods_of_entries[recipe, entry]) > 1:
            lines.append(f"# {method} with recipe {recipe} on {model}: {rate:g}")
            continue
        settings_of_methods = recipes.setdefault(recipe, {})
        rate_of_model = settings_of_methods.setdefault(entry, {"lr": {}})["lr"]
        rate_of_model[model] = rate
    text = yaml.safe_dump({"recipes": recipes}, sort_keys=False, default_flow_style=None, width=100)
    return "\n".join(lines) + "\n" + text

"""Groups of networks compared: means over the networks of a group, and differences. No torch.

Networks of a group are replicates, which differ in the seed of their pretraining: in initial
weights, in the order of images and, if pretrained on a part of a dataset, in the images of this
part. A network's value of a measure is the mean over targets and training seeds. Networks with
underfitted runs of a method don't count for this method.

Two intervals of the same estimate answer different questions:

- over networks: Student's t over the values of the networks, for a difference Welch's t
  (`rib.statistics.tests`). It is for the mean over all networks that could be pretrained like the
  group, on these images. Variation of fine-tuning with its seed is part of the variance over
  networks. A group with one network has none.
- over objects: the bootstrap of `rib.statistics.bootstrap`. It is for these networks and their
  trainings, on other images.

Neither includes the other's variation, and targets are fixed in both. Differences between groups
are contrasts (`rib.statistics.contrast`) of their means. They are paired over objects but not over
networks, though networks of two groups with the same seed may share images of their pretraining.
Holm's correction is over the pairs of groups of a method, size and measure.
Differences between methods are paired by network, with Student's t over the differences; they are
not adjusted for several methods.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rib.base.params import from_params
from rib.statistics.bootstrap import LIMITS, NO_LIMITS, estimate, object_weights, spread
from rib.statistics.contrast import Measure, Measured, contrasts
from rib.statistics.counts import Counts, read_counts
from rib.statistics.fit import underfitted_methods
from rib.statistics.inputs import Inputs
from rib.statistics.ri import ood_accuracies
from rib.statistics.sizes import images_of_pretraining
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.tests import welch_interval

# Measures, in the order of the tables, and whether they are accuracies (0 to 100 percent).
IS_ACCURACY = {
    "mri": False,
    "ood_before": True,
    "ood_after": True,
    "in_distribution": False,  # change of accuracy
    "on_target": True,
}
NETWORKS = "networks"
OBJECTS = "objects"
# Fixed quantities, by resampled units.
FIXED = {NETWORKS: "objects and targets", OBJECTS: "networks, trainings and targets"}
ONE_NETWORK = "one network: no interval over networks"
KEY = ["method", "size", "measure"]
NETWORK_COLUMNS = ["group", "model", *KEY, "value", "ci_low", "ci_high", "counted"]
INTERVAL_COLUMNS = ["over", "fixed", "ci_low", "ci_high", "df"]
MEAN_COLUMNS = ["networks", "mean", "sd", *INTERVAL_COLUMNS, "remark"]
GROUP_COLUMNS = [*KEY, "group", "pretraining_images", *MEAN_COLUMNS]
METHOD_COLUMNS = [*KEY, "group", "reference", *MEAN_COLUMNS]
DIFFERENCE_COLUMNS = [
    *KEY,
    "group",
    "other_group",
    "networks",
    "other_networks",
    "difference",
    *INTERVAL_COLUMNS,
    "p",
    "p_holm",
    "remark",
]


class MeasureOfMethod(NamedTuple):
    """A number by which networks are compared, such as MeasureOfMethod("ft", "all", "mri")."""

    method: str
    size: str
    measure: str


@dataclass(frozen=True)
class MeasuredNetwork:
    """A measure (such as mRI) of one network with one method, mean over targets and seeds."""

    group: str  # of networks that differ in their pretraining seed, such as "1000 images"
    model: str
    measure: MeasureOfMethod  # such as MeasureOfMethod("ft", "all", "mri")
    values: np.ndarray  # (1 + replicates,) percent, the observed value first
    is_fitted: bool  # False if a run of the method is underfitted; then it doesn't count


# (networks, 1 + replicates) percent by group: values of the networks that count.
ValuesOfGroups = Mapping[str, np.ndarray]


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: method_differences, network_differences, network_groups, networks."""
    params = {**inputs.params, "ri": from_params(RIStatistics, inputs.params["ri"])}
    return network_tables(
        inputs.path("counts"), inputs.path("fit"), inputs.paths("descriptions"), **params
    )


def network_tables(
    counts: Path,
    fit: Path,
    descriptions: Iterable[Path],
    *,
    ri: RIStatistics,
    groups: Mapping[str, str],
    in_distribution: Sequence[str],
    pretraining_images: Mapping[str, int],
    compare_to: str,
) -> dict[str, pd.DataFrame]:
    """Measures of networks, their means over the networks of a group, and differences.

    Args:
        counts: file of the grid's counts.
        fit: CSV file with the columns model, method, size, underfitted (yes or no).
        descriptions: `<model>/model.json` of each model of a group that was pretrained here.
        groups: group by model, in the order of the grid, such as {"net-seed0": "1000 images"}.
        in_distribution: datasets whose change of accuracy is a measure; none: no such measure.
        pretraining_images: numbers that entries of models state, by model.
        compare_to: reference method, such as "ft".

    Returns:
        Tables by name, of the measures `IS_ACCURACY` in percent or percentage points; NaN where one
        network isn't enough.
        networks: group, model, method, size, measure, value with its interval over objects, counted
        (yes, or no for a network with an underfitted run of the method).
        network_groups: method, size, measure, group, pretraining_images, networks (number that
        count), their mean and standard deviation, and in a row for each of `FIXED`: over, fixed,
        ci_low, ci_high, df (NaN for objects), remark.
        network_differences: method, size, measure, group, other_group (of fewer pretraining
        images), numbers of their networks, difference (group minus other_group), the columns of
        intervals, p and Holm-adjusted p (over networks only), remark.
        method_differences: method, size, measure, group, reference; then, of the method's value
        minus the reference's on the same network, the columns of network_groups from networks on.
    """
    underfitted = underfitted_methods(fit)
    networks: list[MeasuredNetwork] = []
    for counts_of_model in read_counts(counts):
        model = counts_of_model.states[0].run.model
        if model in groups:
            networks += measures_of_network(
                counts_of_model, groups[model], underfitted, ri, in_distribution
            )
    images_of_groups = _images_of_groups(
        groups, images_of_pretraining(pretraining_images, descriptions)
    )
    ordered_groups = sorted(images_of_groups, key=lambda group: images_of_groups[group])
    values_of_measures = _values_by_measure(networks, ordered_groups)
    confidence = ri.confidence
    group_rows: list[tuple[object, ...]] = []
    difference_rows: list[tuple[object, ...]] = []
    for measure, values_of_groups in values_of_measures.items():
        for group, values in values_of_groups.items():
            images = images_of_groups[group]
            limits = LIMITS if IS_ACCURACY[measure.measure] else NO_LIMITS
            for of_values in _means_with_intervals(values, confidence, limits):
                group_rows.append((*measure, group, images, *of_values))
        difference_rows += _rows_of_differences(measure, values_of_groups, confidence)
    method_rows: list[tuple[object, ...]] = []
    for (measure, group), differences in _differences_from(compare_to, networks).items():
        for of_values in _means_with_intervals(differences, confidence, NO_LIMITS):
            method_rows.append((*measure, group, compare_to, *of_values))
    groups_table = pd.DataFrame(group_rows, columns=GROUP_COLUMNS)
    known_images = groups_table["pretraining_images"].replace(np.inf, np.nan)
    groups_table["pretraining_images"] = known_images.astype("Int64")
    return {
        "networks": _networks_table(networks, confidence),
        "network_groups": groups_table,
        "network_differences": pd.DataFrame(difference_rows, columns=DIFFERENCE_COLUMNS),
        "method_differences": pd.DataFrame(method_rows, columns=METHOD_COLUMNS),
    }


def measures_of_network(
    counts: Counts,
    group: str,
    underfitted: Collection[tuple[str, str, str]],
    ri: RIStatistics,
    in_distribution: Sequence[str],
) -> list[MeasuredNetwork]:
    """All measures of one network, of each method and size.

    Targets that are not evaluated are left out of the accuracy on targets, which is missing if no
    target is evaluated.

    Args:
        underfitted: model, method and size of underfitted runs.
        in_distribution: datasets whose change of accuracy is a measure; none: no such measure.
    """
    plain = counts.without_curves()
    model = plain.states[0].run.model
    values_of_targets = _values_of_runs(plain, ri, in_distribution)
    networks = []
    for measure, values_by_target in values_of_targets.items():
        means_of_targets = [np.mean(of_seeds, axis=0) for of_seeds in values_by_target.values()]
        network = MeasuredNetwork(
            group=group,
            model=model,
            measure=measure,
            values=np.mean(means_of_targets, axis=0),
            is_fitted=(model, measure.method, measure.size) not in underfitted,
        )
        networks.append(network)
    return networks


def _values_of_runs(
    counts: Counts, ri: RIStatistics, in_distribution: Sequence[str]
) -> dict[MeasureOfMethod, dict[str, list[np.ndarray]]]:
    """By measure and target, a list over seeds of (1 + replicates,): {measure: {"noto": [...]}}."""
    weights = object_weights(counts.objects, ri.replicates, ri.seed)
    ood = ood_accuracies(counts, weights, ri.ood_datasets, ri.source_groups)
    in_distribution_of_state = {}
    if in_distribution:
        in_distribution_of_state = ood_accuracies(counts, weights, in_distribution)
    values: dict[MeasureOfMethod, dict[str, list[np.ndarray]]] = {}
    for state, accuracies in ood.items():
        measures_of_run = {
            "mri": accuracies.change,
            "ood_before": accuracies.before,
            "ood_after": accuracies.after,
        }
        if state in in_distribution_of_state:
            measures_of_run["in_distribution"] = in_distribution_of_state[state].change
        if not np.isnan(accuracies.on_target_after[0]):
            measures_of_run["on_target"] = accuracies.on_target_after
        for measure, values_of_run in measures_of_run.items():
            key = MeasureOfMethod(state.run.method, state.run.size, measure)
            values_by_target = values.setdefault(key, {})
            values_by_target.setdefault(state.run.target, []).append(values_of_run)
    return values


def _images_of_groups(
    groups: Mapping[str, str], images_of_models: Mapping[str, int]
) -> dict[str, float]:
    """{"1000 images": 1000.0}: fewest pretraining images of a group's models, to sort groups."""
    images_of_groups: dict[str, float] = {}
    for model, group in groups.items():
        images = images_of_models.get(model, np.inf)  # unknown: last
        images_of_groups[group] = min(images, images_of_groups.get(group, np.inf))
    return images_of_groups


def _values_by_measure(
    networks: Iterable[MeasuredNetwork], ordered_groups: Sequence[str]
) -> dict[MeasureOfMethod, ValuesOfGroups]:
    """By measure and group, (networks, 1 + replicates): {measure: {"1000 images": array}}."""
    rows: dict[MeasureOfMethod, dict[str, list[np.ndarray]]] = {}
    for network in networks:
        if network.is_fitted:
            rows_of_groups = rows.setdefault(network.measure, {})
            rows_of_groups.setdefault(network.group, []).append(network.values)
    values: dict[MeasureOfMethod, ValuesOfGroups] = {}
    for measure in sorted(rows, key=_in_display_order):
        rows_of_groups = rows[measure]
        values[measure] = {
            group: np.array(rows_of_groups[group])
            for group in ordered_groups
            if group in rows_of_groups
        }
    return values


def _in_display_order(measure: MeasureOfMethod) -> tuple[str, str, int]:
    """Sorting key: method, size and position of the measure in tables, such as ("ft", "all", 0)."""
    return measure.method, measure.size, list(IS_ACCURACY).index(measure.measure)


def _networks_table(networks: Iterable[MeasuredNetwork], confidence: float) -> pd.DataFrame:
    """One row per network and measure, with the columns `NETWORK_COLUMNS`."""
    rows = []
    for network in networks:
        counted = "yes" if network.is_fitted else "no"
        interval = estimate(network.values, confidence)
        rows.append((network.group, network.model, *network.measure, *interval, counted))
    return pd.DataFrame(rows, columns=NETWORK_COLUMNS)


def _differences_from(
    reference: str, networks: Iterable[MeasuredNetwork]
) -> dict[tuple[MeasureOfMethod, str], np.ndarray]:
    """(networks, 1 + replicates) by measure and group: a method minus the reference.

    Networks on which one of the two is underfitted are left out, and measures that no method
    changes.
    """
    network_of_measure = {
        (network.model, network.measure): network for network in networks if network.is_fitted
    }
    differences: dict[tuple[MeasureOfMethod, str], list[np.ndarray]] = {}
    for (model, measure), network in network_of_measure.items():
        of_reference = network_of_measure.get((model, measure._replace(method=reference)))
        is_compared = measure.method != reference and measure.measure != "ood_before"
        if is_compared and of_reference is not None:
            of_group = differences.setdefault((measure, network.group), [])
            of_group.append(network.values - of_reference.values)
    return {
        key: np.array(differences[key])
        for key in sorted(differences, key=lambda key: _in_display_order(key[0]))
    }


def _means_with_intervals(
    values: np.ndarray, confidence: float, limits: tuple[float, float]
) -> list[tuple[object, ...]]:
    """Two rows with the columns `MEAN_COLUMNS`: interval over networks, interval over objects.

    Args:
        values: (networks, 1 + replicates) percent or percentage points.
        limits: smallest and largest possible value.
    """
    networks, deviation, low, high = spread(values[:, 0], confidence)
    low, high = np.clip((low, high), *limits)
    freedom = networks - 1 if networks > 1 else np.nan
    mean, object_low, object_high = estimate(values.mean(axis=0), confidence)
    remark = ONE_NETWORK if networks == 1 else ""
    facts = (networks, mean, deviation)
    return [
        (*facts, NETWORKS, FIXED[NETWORKS], low, high, freedom, remark),
        (*facts, OBJECTS, FIXED[OBJECTS], object_low, object_high, np.nan, ""),
    ]


def _rows_of_differences(
    measure: MeasureOfMethod, values_of_groups: ValuesOfGroups, confidence: float
) -> list[tuple[object, ...]]:
    """Rows of `network_differences`: two per pair of groups, over networks and over objects."""
    # Groups are in the order of their pretraining images; each is compared with those before it.
    pairs = [(group, other) for other, group in itertools.combinations(values_of_groups, 2)]
    intervals = [
        welch_interval(values_of_groups[group][:, 0], values_of_groups[other][:, 0], confidence)
        for group, other in pairs
    ]
    p = np.array([interval.p for interval in intervals])
    # Networks are fixed: their mean counts as one run, and only objects are resampled.
    means = {
        group: Measured(of_group.mean(axis=0)[None, None])
        for group, of_group in values_of_groups.items()
    }
    contrasted = contrasts([Measure(measure.measure, measure, means)], pairs, p[None], confidence)
    rows: list[tuple[object, ...]] = []
    for (group, other), interval, contrast in zip(
        pairs, intervals, contrasted.itertuples(), strict=True
    ):
        networks = len(values_of_groups[group])
        other_networks = len(values_of_groups[other])
        remark = ONE_NETWORK if min(networks, other_networks) == 1 else ""
        facts = (*measure, group, other, networks, other_networks, contrast.difference)
        over_networks = (FIXED[NETWORKS], interval.low, interval.high, interval.freedom)
        over_objects = (FIXED[OBJECTS], contrast.ci_low, contrast.ci_high, np.nan)
        rows.append((*facts, NETWORKS, *over_networks, contrast.p, contrast.p_holm, remark))
        rows.append((*facts, OBJECTS, *over_objects, np.nan, np.nan, ""))
    return rows

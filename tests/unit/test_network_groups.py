"""Groups of networks: tables against references written out here, and the figure's numbers."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy import stats

from rib.analyses.networks import describe as networks_describe
from rib.analyses.networks import figure as networks_figure
from rib.analyses.networks.tables import network_tables
from rib.catalog.catalog import Catalog
from rib.grid.labels import GridLabels
from rib.grid.paths import Paths
from rib.schema.run import PRETRAINED, RUN_COLUMNS
from rib.statistics.bootstrap import estimate, object_weights
from rib.statistics.counts import Counts, write_counts
from rib.statistics.ri import ood_accuracies
from rib.statistics.statistics_settings import RIStatistics
from rib.statistics.writing import read_fit, write_tables
from tiny.projects.grids import grid
from tiny.projects.project import ROOT
from tiny.projects.wiring import GRIDS, OWN_CNN
from tiny.tables.states import state_of

CONFIDENCE = 0.9
OOD = ["a", "b", "c"]
OBJECTS = dict.fromkeys([*OOD, "clean"], 30)
# The groups, in the order of the grid, and their models.
GROUPS = {"big": ["big0", "big1", "big2"], "small": ["small0", "small1", "small2"], "vit": ["vit0"]}


def group_of_models(groups):
    """The group of each model, of groups that are lists of models."""
    group_of = {}
    for group, models in groups.items():
        group_of.update(dict.fromkeys(models, group))
    return group_of


GROUP_OF = group_of_models(GROUPS)
PRETRAINED_ON = {"big": 50_000, "small": 1_000}  # the ViT states its number in its entry
METHODS = ("ft", "lwf")
TARGETS = ("a", "b")
SEEDS = (0, 1)
MEASURES = ["mri", "ood_before", "ood_after", "in_distribution", "on_target"]
ACCURACIES = ("ood_before", "ood_after", "on_target")
TABLES = ("networks", "network_groups", "network_differences", "method_differences")


def made_up_counts(models=tuple(GROUP_OF), methods=METHODS, chances=None):
    """Counts of random right answers, with other objects in each dataset.

    Args:
        chances: of a right answer, by model; else drawn for each model.
    """
    rng = np.random.default_rng(1)
    states = []
    for model in models:
        states.append(state_of(model, PRETRAINED, "none", "all", 0))
        for method, target, seed in itertools.product(methods, TARGETS, SEEDS):
            states.append(state_of(model, method, target, "all", seed))
    states.sort()
    if chances is None:
        chances = {model: rng.uniform(0.3, 0.7) for model in models}
    correct = {}
    for name, number in OBJECTS.items():
        draws = rng.random((len(states), number))
        limits = np.array([chances[state.run.model] for state in states])
        correct[name] = (draws < limits[:, None]).astype(np.uint16)
    starts = dict(zip(OBJECTS, np.cumsum([0, *OBJECTS.values()]), strict=False))
    return Counts(
        states=states,
        datasets=list(OBJECTS),
        objects=sum(OBJECTS.values()),
        object_indices={name: starts[name] + np.arange(n) for name, n in OBJECTS.items()},
        labels={name: np.zeros(n, int) for name, n in OBJECTS.items()},
        images={name: np.ones(n, np.uint16) for name, n in OBJECTS.items()},
        correct=correct,
    )


# How groups are compared, arguments of `network_tables`.
SETTINGS = {
    "ri": RIStatistics(
        ood_datasets=OOD, source_groups=None, replicates=200, confidence=CONFIDENCE, seed=3
    ),
    "groups": GROUP_OF,
    "in_distribution": ["clean"],
    "pretraining_images": {"vit0": 50_000},
    "compare_to": "ft",
}


def replace_groups(group_of, images):
    """The settings with other groups and numbers of pretraining images, each by model."""
    return {**SETTINGS, "groups": group_of, "pretraining_images": images}


def write_fit(path, counts, underfitted):
    """Write the table of fits, in which all fine-tuned runs but these are finished."""
    lines = []
    for state in counts.states:
        if not state.is_pretrained:
            is_underfitted = "yes" if state.run in underfitted else "no"
            lines.append((*state.run.values(RUN_COLUMNS), 50.0, is_underfitted))
    pd.DataFrame(lines, columns=[*RUN_COLUMNS, "fit", "underfitted"]).to_csv(path, index=False)


def write_descriptions(folder):
    """Write model.json of each model that was pretrained here; gives the files."""
    descriptions = []
    for model, group in GROUP_OF.items():
        if group in PRETRAINED_ON:
            path = folder / "models" / model / "model.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"trained": {"images": PRETRAINED_ON[group]}}))
            descriptions.append(path)
    return descriptions


def write_network_tables(folder, counts, underfitted=(), settings=SETTINGS):
    """The tables as their job writes them, by name.

    Args:
        underfitted: runs.
    """
    counts_file = folder / "counts.npz"
    write_counts(counts, counts_file)
    fit = folder / "fit.csv"
    write_fit(fit, counts, underfitted)
    tables = network_tables(counts_file, fit, write_descriptions(folder), **settings)
    files = {name: folder / f"{name}.csv" for name in tables}
    write_tables(tables, files, fit=read_fit(fit), conditions="protocol paper")
    return {name: pd.read_csv(path, dtype={"size": str}) for name, path in files.items()}


def values_by_hand(counts, method):
    """Measures of each model: means over targets and seeds of accuracies, of loops over runs."""
    row_of_state = {state: row for row, state in enumerate(counts.states)}

    def accuracy(state, dataset):
        return 100 * counts.correct[dataset][row_of_state[state]].mean()

    values = {}
    for model in dict.fromkeys(state.run.model for state in counts.states):
        before = state_of(model, PRETRAINED, "none", "all", 0)
        by_run = {measure: [] for measure in MEASURES}
        for target, seed in itertools.product(TARGETS, SEEDS):
            after = state_of(model, method, target, "all", seed)
            others = [name for name in OOD if name != target]
            ood_before = np.mean([accuracy(before, name) for name in others])
            ood_after = np.mean([accuracy(after, name) for name in others])
            change_on_clean = accuracy(after, "clean") - accuracy(before, "clean")
            by_run["ood_before"].append(ood_before)
            by_run["ood_after"].append(ood_after)
            by_run["mri"].append(ood_after - ood_before)
            by_run["in_distribution"].append(change_on_clean)
            by_run["on_target"].append(accuracy(after, target))
        values[model] = {measure: np.mean(numbers) for measure, numbers in by_run.items()}
    return values


def rows_with(table, **values):
    """The rows of a table that have these values, by column."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def row_with(table, **values):
    """The one row of a table that has these values, by column."""
    (row,) = rows_with(table, **values).to_dict("records")
    return row


def models_by_hand(measure, values, models):
    """A measure of each of these models, (models,), of `values_by_hand`."""
    return np.array([values[model][measure] for model in models])


def test_a_networks_value_is_its_mean_over_targets_and_training_seeds(tmp_path):
    counts = made_up_counts()
    table = write_network_tables(tmp_path, counts)["networks"]
    assert len(table) == len(GROUP_OF) * len(METHODS) * len(MEASURES)
    for method in METHODS:
        for model, values in values_by_hand(counts, method).items():
            rows = rows_with(table, model=model, method=method).set_index("measure")
            assert set(rows["group"]) == {GROUP_OF[model]}
            assert list(rows.index) == MEASURES
            assert rows["value"].to_dict() == pytest.approx(values, abs=1e-6)
    assert set(table["counted"]) == {"yes"}
    assert set(table["fit"]) == {50.0}
    assert set(table["underfitted"]) == {0}


def test_means_of_groups_have_students_interval_over_networks(tmp_path):
    counts = made_up_counts()
    table = write_network_tables(tmp_path, counts)["network_groups"]
    values = values_by_hand(counts, "ft")
    for group, measure in itertools.product(["big", "small"], MEASURES):
        row = row_with(table, method="ft", group=group, measure=measure, over="networks")
        networks = models_by_hand(measure, values, GROUPS[group])
        low, high = stats.t.interval(
            CONFIDENCE, len(networks) - 1, networks.mean(), stats.sem(networks)
        )
        if measure in ACCURACIES:
            low = max(low, 0)
            high = min(high, 100)
        assert row["mean"] == pytest.approx(networks.mean())
        assert row["sd"] == pytest.approx(networks.std(ddof=1))
        assert row["ci_low"] == pytest.approx(low)
        assert row["ci_high"] == pytest.approx(high)
        assert row["networks"] == 3
        assert row["df"] == 2
        assert pd.isna(row["remark"])


def test_the_ends_of_an_interval_of_accuracies_are_accuracies(tmp_path):
    chances = {"big0": 0.02, "big1": 0.5, "big2": 0.98}
    counts = made_up_counts(models=GROUPS["big"], chances=chances)
    table = write_network_tables(tmp_path, counts)["network_groups"]
    row = row_with(table, over="networks", method="ft", measure="ood_after")
    assert row["ci_low"] == 0
    assert row["ci_high"] == 100


def replicates_of_groups(counts, method, attribute):
    """Means over the networks of each group of an attribute of rib.statistics.ri.Ood."""
    weights = object_weights(counts.objects, SETTINGS["ri"].replicates, SETTINGS["ri"].seed)
    ood = ood_accuracies(counts, weights, OOD)
    means = {}
    for group, models in GROUPS.items():
        replicates_of_runs = [
            getattr(accuracies, attribute)
            for state, accuracies in ood.items()
            if state.run.model in models and state.run.method == method
        ]
        means[group] = np.mean(replicates_of_runs, axis=0)
    return means


def test_intervals_over_objects_are_of_the_same_estimates_with_networks_fixed(tmp_path):
    counts = made_up_counts()
    tables = write_network_tables(tmp_path, counts)
    means = replicates_of_groups(counts, "lwf", "change")

    rows = rows_with(tables["network_groups"], method="lwf", measure="mri", over="objects")
    assert set(rows["group"]) == {*GROUPS}
    for row in rows.to_dict("records"):
        expected = estimate(means[row["group"]], CONFIDENCE)
        assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx(expected, abs=1e-5)
        assert np.isnan(row["df"])

    rows = rows_with(tables["network_differences"], method="lwf", measure="mri", over="objects")
    assert len(rows) == 3
    assert rows[["df", "p", "p_holm", "remark"]].isna().all(axis=None)
    for row in rows.to_dict("records"):
        expected = estimate(means[row["group"]] - means[row["other_group"]], CONFIDENCE)
        interval = (row["difference"], row["ci_low"], row["ci_high"])
        assert interval == pytest.approx(expected, abs=1e-5)


def test_methods_are_compared_on_the_same_networks(tmp_path):
    counts = made_up_counts()
    table = write_network_tables(tmp_path, counts)["method_differences"]
    assert set(table["method"]) == {"lwf"}
    assert set(table["reference"]) == {"ft"}
    assert "ood_before" not in set(table["measure"]), "no method changes it"
    of_ft = values_by_hand(counts, "ft")
    of_lwf = values_by_hand(counts, "lwf")
    means_of_ft = replicates_of_groups(counts, "ft", "change")
    means_of_lwf = replicates_of_groups(counts, "lwf", "change")
    for group, models in GROUPS.items():
        # then over networks it is Student's interval of the paired differences
        for measure in ("mri", "ood_after", "in_distribution", "on_target"):
            row = row_with(table, group=group, measure=measure, over="networks")
            differences = models_by_hand(measure, of_lwf, models)
            differences = differences - models_by_hand(measure, of_ft, models)
            assert row["networks"] == len(models)
            assert row["mean"] == pytest.approx(differences.mean(), abs=1e-5)
            low = high = np.nan
            if len(models) > 1:
                error = stats.sem(differences)
                low, high = stats.t.interval(CONFIDENCE, len(models) - 1, row["mean"], error)
            ends = (row["ci_low"], row["ci_high"])
            assert ends == pytest.approx((low, high), abs=1e-5, nan_ok=True)
        # and over objects the bootstrap's, with the same draws for both methods
        row = row_with(table, group=group, measure="mri", over="objects")
        expected = estimate(means_of_lwf[group] - means_of_ft[group], CONFIDENCE)
        interval = (row["mean"], row["ci_low"], row["ci_high"])
        assert interval == pytest.approx(expected, abs=1e-5)


def test_methods_are_compared_on_networks_on_which_both_are_fitted(tmp_path):
    counts = made_up_counts()
    table = write_network_tables(tmp_path, counts, [UNDERFITTED_RUN])["method_differences"]
    rows = rows_with(table, measure="mri", over="networks").set_index("group")
    assert rows["networks"].to_dict() == {"big": 2, "small": 3, "vit": 1}


def test_without_the_reference_no_methods_are_compared(tmp_path):
    settings = {**SETTINGS, "compare_to": "soup"}
    tables = write_network_tables(tmp_path, made_up_counts(), settings=settings)
    assert tables["method_differences"].empty


def holm_by_hand(p_values):
    """Holm's correction of three p values, the smallest first."""
    smallest, middle, largest = sorted(p_values)
    adjusted_smallest = min(1, 3 * smallest)
    adjusted_middle = max(adjusted_smallest, min(1, 2 * middle))
    adjusted_largest = max(adjusted_middle, largest)
    return [adjusted_smallest, adjusted_middle, adjusted_largest]


def test_differences_of_groups_are_welchs_with_holm_over_pairs(tmp_path):
    # given three groups of three networks each
    groups = {group: [f"{group}_{network}" for network in range(3)] for group in ("g0", "g1", "g2")}
    group_of = group_of_models(groups)
    counts = made_up_counts(models=tuple(group_of))
    settings = replace_groups(group_of, images={"g0_0": 30, "g1_0": 10, "g2_0": 20})
    # when
    table = write_network_tables(tmp_path, counts, settings=settings)["network_differences"]
    # then
    rows = rows_with(table, over="networks", method="ft", measure="mri")
    pairs = rows[["group", "other_group"]].to_numpy().tolist()
    assert pairs == [["g2", "g1"], ["g0", "g1"], ["g0", "g2"]], (
        "groups of more pretraining images minus those of fewer"
    )
    values = values_by_hand(counts, "ft")
    p_values = []
    for row in rows.to_dict("records"):
        networks = models_by_hand("mri", values, groups[row["group"]])
        other_networks = models_by_hand("mri", values, groups[row["other_group"]])
        test = stats.ttest_ind(networks, other_networks, equal_var=False)
        interval = test.confidence_interval(CONFIDENCE)
        difference = networks.mean() - other_networks.mean()
        assert row["difference"] == pytest.approx(difference, abs=1e-5)
        assert row["ci_low"] == pytest.approx(interval.low, abs=1e-5)
        assert row["ci_high"] == pytest.approx(interval.high, abs=1e-5)
        assert row["df"] == pytest.approx(test.df, abs=1e-5)
        assert row["p"] == pytest.approx(test.pvalue, abs=1e-5)
        assert row["networks"] == row["other_networks"] == 3
        p_values.append(test.pvalue)
    assert sorted(rows["p_holm"]) == pytest.approx(holm_by_hand(p_values), abs=1e-5)


def test_a_single_network_has_an_estimate_without_an_interval_over_networks(tmp_path):
    counts = made_up_counts()
    tables = write_network_tables(tmp_path, counts)
    of_ft = {"method": "ft", "measure": "mri", "over": "networks"}

    row = row_with(tables["network_groups"], group="vit", **of_ft)
    assert row["mean"] == pytest.approx(values_by_hand(counts, "ft")["vit0"]["mri"])
    assert np.isnan([row[column] for column in ("sd", "ci_low", "ci_high", "df")]).all()
    assert row["networks"] == 1
    assert "no interval" in row["remark"]

    rows = rows_with(tables["network_differences"], **of_ft)
    with_vit = rows[(rows["group"] == "vit") | (rows["other_group"] == "vit")]
    assert len(with_vit) == 2
    assert with_vit["difference"].notna().all()
    assert with_vit[["ci_low", "ci_high", "df", "p", "p_holm"]].isna().all(axis=None)
    (tested,) = rows[rows["p"].notna()].to_dict("records")
    assert tested["p_holm"] == tested["p"], "pairs without a test don't count in Holm's correction"


def test_groups_are_in_the_order_of_pretraining_images_and_of_the_grid(tmp_path):
    table = write_network_tables(tmp_path, made_up_counts())["network_groups"]
    assert list(dict.fromkeys(table["group"])) == ["small", "big", "vit"]
    images = table.drop_duplicates("group").set_index("group")["pretraining_images"]
    assert images.to_dict() == {"small": 1_000, "big": 50_000, "vit": 50_000}


def test_groups_of_an_unknown_number_of_images_come_last(tmp_path):
    settings = replace_groups(GROUP_OF, images={})
    tables = write_network_tables(tmp_path, made_up_counts(), settings=settings)
    table = tables["network_groups"]
    assert list(dict.fromkeys(table["group"])) == ["small", "big", "vit"]
    assert rows_with(table, group="vit")["pretraining_images"].isna().all()


# One run of `big1` whose training did not finish.
UNDERFITTED_RUN = state_of("big1", "ft", "a", "all", 1).run


def test_an_underfitted_network_does_not_count_for_its_method_alone(tmp_path):
    counts = made_up_counts()
    tables = write_network_tables(tmp_path, counts, underfitted=[UNDERFITTED_RUN])
    counted = tables["networks"].set_index(["model", "method"])["counted"]
    assert set(counted["big1", "ft"]) == {"no"}
    assert set(counted["big1", "lwf"]) == {"yes"}
    groups = rows_with(tables["network_groups"], group="big", measure="mri", over="networks")
    assert groups.set_index("method")["networks"].to_dict() == {"ft": 2, "lwf": 3}
    finished = models_by_hand("mri", values_by_hand(counts, "ft"), ["big0", "big2"])
    assert row_with(groups, method="ft")["mean"] == pytest.approx(finished.mean())


def test_without_any_finished_network_tables_have_no_rows(tmp_path):
    counts = made_up_counts(models=GROUPS["big"], methods=["ft"])
    all_runs = [state.run for state in counts.states]
    tables = write_network_tables(tmp_path, counts, underfitted=all_runs)
    assert tables["network_groups"].empty
    assert tables["network_differences"].empty
    _, drawn_rows = draw(tables)
    assert drawn_rows.empty


def test_models_without_a_group_are_left_out(tmp_path):
    counts = made_up_counts(models=(*GROUPS["big"], "other"))
    tables = write_network_tables(tmp_path, counts)
    assert set(tables["networks"]["model"]) == {*GROUPS["big"]}
    assert set(tables["network_groups"]["group"]) == {"big"}


def test_without_datasets_in_distribution_there_is_no_such_measure(tmp_path):
    settings = {**SETTINGS, "in_distribution": []}
    counts = made_up_counts(models=GROUPS["big"])
    tables = write_network_tables(tmp_path, counts, settings=settings)
    measures = [measure for measure in MEASURES if measure != "in_distribution"]
    assert list(dict.fromkeys(tables["network_groups"]["measure"])) == measures


def test_the_same_counts_give_the_same_bytes(tmp_path):
    bytes_of_calls = []
    for _ in range(2):
        write_network_tables(tmp_path, made_up_counts())
        bytes_of_calls.append({name: (tmp_path / f"{name}.csv").read_bytes() for name in TABLES})
    first_call, second_call = bytes_of_calls
    assert first_call == second_call


# The figure

STYLES = {
    "ft": {"label": "FT", "colour": "#d55e00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009e73", "marker": "^"},
}


def draw(tables):
    """The figure of these tables, and the rows that it shows."""
    return networks_figure.draw_networks(
        tables["networks"],
        tables["network_groups"],
        models=dict.fromkeys(GROUP_OF, "Model"),
        methods=STYLES,
        confidence=CONFIDENCE,
    )


def intervals(axes):
    """Both ends of every interval that was drawn."""
    ends = set()
    for container in axes.containers:
        _, _, bars = container
        for lines in bars:
            # An interval that is NaN has a segment without points.
            segments = [segment for segment in lines.get_segments() if len(segment)]
            for segment in segments:
                low, high = segment[:, 1]
                ends.add((round(low, 4), round(high, 4)))
    return ends


def dots(axes):
    """Heights of the dots that were drawn, sorted."""
    heights = []
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            positions = np.ma.getdata(collection.get_offsets())
            heights += positions[:, 1].tolist()
    return sorted(heights)


def texts_of(artists):
    """What labels and legends of a figure say."""
    return [artist.get_text() for artist in artists]


def test_the_figure_shows_networks_means_and_intervals_over_networks(tmp_path):
    tables = write_network_tables(tmp_path, made_up_counts())
    figure, drawn_rows = draw(tables)
    accuracy_axes, mri_axes = figure.axes

    groups = rows_with(tables["network_groups"], over="networks").round(4)
    with_interval = groups[groups["ci_low"].notna()]
    for axes, measures in ((mri_axes, ["mri"]), (accuracy_axes, ["ood_before", "ood_after"])):
        rows = with_interval[with_interval["measure"].isin(measures)]
        assert intervals(axes) == set(zip(rows["ci_low"], rows["ci_high"], strict=True))

    networks = tables["networks"]
    assert dots(mri_axes) == sorted(rows_with(networks, measure="mri")["value"])
    before = rows_with(networks, measure="ood_before", method="ft")["value"]
    after = rows_with(networks, measure="ood_after")["value"]
    assert dots(accuracy_axes) == sorted([*before, *after]), "before is drawn once"

    groups_and_numbers = [label.split()[:2] for label in texts_of(mri_axes.get_xticklabels())]
    assert groups_and_numbers == [["small", "3"], ["big", "3"], ["vit", "1"]]

    drawn_measures = ["mri", "ood_before", "ood_after"]
    assert set(drawn_rows["measure"]) == {*drawn_measures}
    drawn_networks = networks["measure"].isin(drawn_measures).sum()
    drawn_groups = groups["measure"].isin(drawn_measures).sum()
    assert len(drawn_rows) == drawn_networks + drawn_groups


def test_the_figure_leaves_out_underfitted_networks_and_counts_those_of_methods(tmp_path):
    tables = write_network_tables(tmp_path, made_up_counts(), underfitted=[UNDERFITTED_RUN])
    figure, drawn_rows = draw(tables)
    accuracy_axes, mri_axes = figure.axes
    networks_of_methods = len(METHODS) * len(GROUP_OF)
    assert len(dots(mri_axes)) == networks_of_methods - 1
    _, label_of_big, _ = texts_of(mri_axes.get_xticklabels())
    assert "2 to 3" in label_of_big
    is_left_out = (drawn_rows["model"] == "big1") & (drawn_rows["method"] == "ft")
    assert not is_left_out.any()
    # before fine-tuning, the network counts for the other method
    assert len(dots(accuracy_axes)) == networks_of_methods - 1 + len(GROUP_OF)


def test_the_figure_of_methods_has_each_networks_difference(tmp_path):
    tables = write_network_tables(tmp_path, made_up_counts())
    figure, drawn_rows = networks_figure.draw_method_differences(
        tables["networks"],
        tables["method_differences"],
        models=dict.fromkeys(GROUP_OF, "Model"),
        methods=STYLES,
        confidence=CONFIDENCE,
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "big, 3 networks",
        "small, 3 networks",
        "vit, 1 network, no interval",
    ]
    mri = rows_with(tables["networks"], measure="mri")
    mri = mri.pivot(index=["group", "model"], columns="method", values="value")
    differences = mri["lwf"] - mri["ft"]
    for axes, group in zip(figure.axes, GROUPS, strict=True):
        (collection,) = axes.collections
        x_of_dots = np.ma.getdata(collection.get_offsets())[:, 0]
        assert sorted(x_of_dots) == pytest.approx(sorted(differences[group]))
        assert texts_of(axes.get_yticklabels()) == ["LwF"]
        bar, marker, _line_at_0 = axes.lines
        row = row_with(drawn_rows, group=group)
        assert marker.get_xdata()[0] == pytest.approx(row["mean"])
        ends = (row["ci_low"], row["ci_high"])
        assert tuple(bar.get_xdata()) == pytest.approx(ends, nan_ok=True)


# What is described


@pytest.fixture
def described(tmp_path):
    """A function that gives what the analysis makes of a grid, by its name."""
    (tmp_path / "models.yaml").write_text(OWN_CNN)
    catalog = Catalog([ROOT / "workflow/catalog", tmp_path])

    def describe(name):
        choices = dict(GRIDS[name].config)
        choices.pop("catalog", None)  # it is the one above
        choices.pop("external", None)  # weights in files that are not there
        of_choices = grid(catalog, **choices)
        return networks_describe.describe(of_choices, Paths(of_choices), GridLabels(of_choices))

    return describe


@pytest.mark.parametrize("name", ["drawings", "replicates"])
def test_only_a_grid_with_replicates_has_the_analysis(name, described):
    assert (described(name) is not None) == (name == "replicates")


def test_the_job_is_given_the_groups_and_the_numbers_of_pretraining_images(described):
    analysis = described("replicates")
    assert analysis.params["groups"] == {
        "fashion_cnn_1k": "CNN on 1,000",
        "fashion_cnn_1k_seed1": "CNN on 1,000",
        "own_cnn": "Own CNNs",
    }
    assert analysis.params["in_distribution"] == ["fashion"]
    assert analysis.params["pretraining_images"] == {
        "fashion_cnn_1k": 1000,
        "fashion_cnn_1k_seed1": 1000,
        "own_cnn": 7000,
    }
    of_a_network_that_is_pretrained_here = ["results/fashion/models/own_cnn/model.json"]
    assert analysis.inputs["descriptions"] == of_a_network_that_is_pretrained_here

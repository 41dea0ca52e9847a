"""Groups of networks: tables against references written out here, and the figure's numbers."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rib.analyses.networks import networks as figure_module
from rib.analyses.networks.settings import NetworkGroupSettings
from rib.analyses.networks.tables import network_tables, welch_interval
from rib.analysis.bootstrap import estimate, object_weights
from rib.analysis.counts import write_counts
from rib.analysis.ri import ood_accuracies
from rib.analysis.settings import RIStatistics
from rib.analysis.writing import read_fit, write_tables
from rib.config.run import PRETRAINED, RUN_COLUMNS
from tiny.states import counts_without_shared_objects, state_of

CONFIDENCE = 0.9
OOD = ["a", "b", "c"]
OBJECTS = dict.fromkeys([*OOD, "clean"], 30)
# The groups, in the order of the grid, and their models.
GROUPS = {"big": ["big0", "big1", "big2"], "small": ["small0", "small1", "small2"], "vit": ["vit0"]}
GROUP_OF = {model: group for group, models in GROUPS.items() for model in models}
PRETRAINED_ON = {"big": 50_000, "small": 1_000}  # the ViT states its number in its entry
METHODS = ("ft", "lwf")
TARGETS = ("a", "b")
SEEDS = (0, 1)
MEASURES = ["mri", "ood_before", "ood_after", "in_distribution", "on_target"]


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
    return counts_without_shared_objects(states, OBJECTS, correct)


SETTINGS = NetworkGroupSettings(
    ri=RIStatistics(
        ood_datasets=OOD, source_groups=None, replicates=200, confidence=CONFIDENCE, seed=3
    ),
    groups=GROUP_OF,
    in_distribution=["clean"],
    pretraining_images={"vit0": 50_000},
    conditions="protocol paper",
    code="",
)


def written(folder, counts, unfinished=(), settings=SETTINGS):
    """The tables as their job writes them, by name; `unfinished`: runs, as RUN_COLUMNS."""
    write_counts(counts, folder / "counts.npz")
    runs = [state.run.values(RUN_COLUMNS) for state in counts.states if not state.is_pretrained]
    fits = [(*run, 50.0, "yes" if run in unfinished else "no") for run in runs]
    fit = folder / "fit.csv"
    pd.DataFrame(fits, columns=[*RUN_COLUMNS, "fit", "unfinished"]).to_csv(fit, index=False)
    descriptions = []
    for model, group in GROUP_OF.items():
        if group in PRETRAINED_ON:
            path = folder / "models" / model / "model.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"trained": {"images": PRETRAINED_ON[group]}}))
            descriptions.append(path)
    tables = network_tables(folder / "counts.npz", fit, descriptions, settings)
    files = {name: folder / f"{name}.csv" for name in tables}
    write_tables(tables, files, fit=read_fit(fit), conditions=settings.conditions)
    return {name: pd.read_csv(path, dtype={"size": str}) for name, path in files.items()}


def values_by_hand(counts, method):
    """Measures of each model: means over targets and seeds of accuracies, of loops over runs."""
    index = {state: i for i, state in enumerate(counts.states)}

    def accuracy(state, dataset):
        return 100 * counts.correct[dataset][index[state]].mean()

    values = {}
    for model in dict.fromkeys(state.run.model for state in counts.states):
        before = state_of(model, PRETRAINED, "none", "all", 0)
        by_run = {measure: [] for measure in MEASURES}
        for target, seed in itertools.product(TARGETS, SEEDS):
            after = state_of(model, method, target, "all", seed)
            others = [name for name in OOD if name != target]
            ood_before = np.mean([accuracy(before, name) for name in others])
            ood_after = np.mean([accuracy(after, name) for name in others])
            by_run["ood_before"].append(ood_before)
            by_run["ood_after"].append(ood_after)
            by_run["mri"].append(ood_after - ood_before)
            by_run["in_distribution"].append(accuracy(after, "clean") - accuracy(before, "clean"))
            by_run["on_target"].append(accuracy(after, target))
        values[model] = {measure: np.mean(numbers) for measure, numbers in by_run.items()}
    return values


def of(table, **wanted):
    """The rows with these values, by column."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def test_a_networks_value_is_its_mean_over_targets_and_training_seeds(tmp_path):
    counts = made_up_counts()
    table = written(tmp_path, counts)["networks"]
    assert len(table) == len(GROUP_OF) * len(METHODS) * len(MEASURES)
    for method in METHODS:
        for model, values in values_by_hand(counts, method).items():
            rows = of(table, model=model, method=method).set_index("measure")
            assert set(rows["group"]) == {GROUP_OF[model]}
            assert list(rows.index) == MEASURES
            np.testing.assert_allclose(rows["value"], list(values.values()), atol=1e-6)
    assert set(table["counted"]) == {"yes"}
    assert set(table["fit"]) == {50.0} and set(table["unfinished"]) == {0}


def test_means_of_groups_have_students_interval_over_networks(tmp_path):
    counts = made_up_counts()
    table = of(written(tmp_path, counts)["network_groups"], over="networks")
    values = values_by_hand(counts, "ft")
    for group, measure in itertools.product(["big", "small"], MEASURES):
        (row,) = of(table, method="ft", group=group, measure=measure).to_dict("records")
        networks = np.array([values[model][measure] for model in GROUPS[group]])
        low, high = stats.t.interval(
            CONFIDENCE, len(networks) - 1, networks.mean(), stats.sem(networks)
        )
        if measure in ("ood_before", "ood_after", "on_target"):
            low, high = max(low, 0), min(high, 100)
        numbers = [row[name] for name in ("mean", "sd", "ci_low", "ci_high")]
        assert numbers == pytest.approx([networks.mean(), networks.std(ddof=1), low, high])
        assert (row["networks"], row["df"], row["fixed"]) == (3, 2, "objects and targets")
        assert pd.isna(row["remark"])


def test_the_ends_of_an_interval_of_accuracies_are_accuracies(tmp_path):
    chances = {"big0": 0.02, "big1": 0.5, "big2": 0.98}
    table = written(tmp_path, made_up_counts(models=GROUPS["big"], chances=chances))
    table = of(table["network_groups"], over="networks", method="ft").set_index("measure")
    assert table.loc["ood_after", ["ci_low", "ci_high"]].tolist() == [0, 100]


def replicates_of_groups(counts, method, attribute):
    """Means over the networks of each group of an attribute of rib.analysis.ri.Ood."""
    weights = object_weights(counts.objects, SETTINGS.ri.replicates, SETTINGS.ri.seed)
    ood = ood_accuracies(counts, weights, OOD)
    means = {}
    for group, models in GROUPS.items():
        values = [
            getattr(accuracies, attribute)
            for state, accuracies in ood.items()
            if state.run.model in models and state.run.method == method
        ]
        means[group] = np.mean(values, axis=0)
    return means


def test_intervals_over_objects_are_of_the_same_estimates_with_networks_fixed(tmp_path):
    counts = made_up_counts()
    tables = written(tmp_path, counts)
    means = replicates_of_groups(counts, "lwf", "change")
    rows = of(tables["network_groups"], method="lwf", measure="mri", over="objects")
    for row in rows.to_dict("records"):
        assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx(
            estimate(means[row["group"]], CONFIDENCE), abs=1e-5
        )
        assert row["fixed"] == "networks, trainings and targets" and np.isnan(row["df"])
    rows = of(tables["network_differences"], method="lwf", measure="mri", over="objects")
    assert len(rows) == 3 and rows[["df", "p", "p_holm", "remark"]].isna().all(axis=None)
    for row in rows.to_dict("records"):
        difference = means[row["group"]] - means[row["other_group"]]
        assert (row["difference"], row["ci_low"], row["ci_high"]) == pytest.approx(
            estimate(difference, CONFIDENCE), abs=1e-5
        )


def test_welchs_interval_is_that_of_its_formulas():
    """Of the variances of both means, as Welch and Satterthwaite wrote them down."""
    first, second = np.array([3.0, 5.5, 4.0, 9.0]), np.array([1.0, 1.5, 2.5])
    variances = np.array([first.var(ddof=1) / 4, second.var(ddof=1) / 3])
    freedom = variances.sum() ** 2 / (variances**2 / np.array([3, 2])).sum()
    difference, error = first.mean() - second.mean(), np.sqrt(variances.sum())
    reach = stats.t.ppf(0.975, freedom) * error
    interval = welch_interval(first, second, 0.95)
    assert interval.freedom == pytest.approx(freedom)
    assert (interval.low, interval.high) == pytest.approx((difference - reach, difference + reach))
    assert interval.p == pytest.approx(2 * stats.t.sf(difference / error, freedom))


def test_welchs_interval_of_an_example_with_a_printed_table():
    """Of equal variances 1 of three values each there are 4 degrees of freedom.

    The error is sqrt(2/3); Student's table has 2.776 for 95 % with 4 degrees of freedom.
    """
    interval = welch_interval(np.array([4.0, 5, 6]), np.array([1.0, 2, 3]), 0.95)
    assert interval.freedom == pytest.approx(4)
    reach = 2.776 * np.sqrt(2 / 3)
    assert (interval.low, interval.high) == pytest.approx((3 - reach, 3 + reach), abs=1e-3)


def test_networks_that_are_all_alike_have_no_test():
    interval = welch_interval(np.array([5.0, 5.0]), np.array([4.0, 4.0]), 0.95)
    assert (interval.low, interval.high) == (1, 1)
    assert np.isnan(interval.freedom) and np.isnan(interval.p)


def test_differences_of_groups_are_welchs_with_holm_over_pairs(tmp_path):
    groups = {f"g{i}": [f"g{i}_{network}" for network in range(3)] for i in range(3)}
    group_of = {model: group for group, models in groups.items() for model in models}
    counts = made_up_counts(models=tuple(group_of))
    settings = replace_groups(group_of, images={"g0_0": 30, "g1_0": 10, "g2_0": 20})
    table = of(written(tmp_path, counts, settings=settings)["network_differences"], over="networks")
    values = values_by_hand(counts, "ft")
    rows = of(table, method="ft", measure="mri").to_dict("records")
    assert [(row["group"], row["other_group"]) for row in rows] == [
        ("g2", "g1"),
        ("g0", "g1"),
        ("g0", "g2"),
    ], "groups of more pretraining images minus those of fewer"
    p_values = []
    for row in rows:
        first, second = (
            np.array([values[model]["mri"] for model in groups[row[column]]])
            for column in ("group", "other_group")
        )
        test = stats.ttest_ind(first, second, equal_var=False)
        interval = test.confidence_interval(CONFIDENCE)
        numbers = [row[name] for name in ("difference", "ci_low", "ci_high", "df", "p")]
        assert numbers == pytest.approx(
            [first.mean() - second.mean(), *interval, test.df, test.pvalue], abs=1e-5
        )
        assert (row["networks"], row["other_networks"]) == (3, 3)
        p_values.append(test.pvalue)
    smallest, middle, largest = np.sort(p_values)
    adjusted = [min(1, 3 * smallest)]
    adjusted.append(max(adjusted[0], min(1, 2 * middle)))
    adjusted.append(max(adjusted[1], largest))
    assert sorted(row["p_holm"] for row in rows) == pytest.approx(adjusted, abs=1e-5)


def replace_groups(group_of, images):
    """The settings with other groups and numbers of pretraining images, each by model."""
    return SETTINGS.model_copy(update={"groups": group_of, "pretraining_images": images})


def test_a_single_network_has_an_estimate_without_an_interval_over_networks(tmp_path):
    counts = made_up_counts()
    tables = written(tmp_path, counts)
    (row,) = of(
        tables["network_groups"], group="vit", method="ft", measure="mri", over="networks"
    ).to_dict("records")
    assert row["mean"] == pytest.approx(values_by_hand(counts, "ft")["vit0"]["mri"])
    assert np.isnan([row[name] for name in ("sd", "ci_low", "ci_high", "df")]).all()
    assert (row["networks"], row["remark"]) == (1, "one network: no interval over networks")
    rows = of(tables["network_differences"], method="ft", measure="mri", over="networks")
    with_vit = rows[(rows["group"] == "vit") | (rows["other_group"] == "vit")]
    assert len(with_vit) == 2 and with_vit["difference"].notna().all()
    assert with_vit[["ci_low", "ci_high", "df", "p", "p_holm"]].isna().all(axis=None)
    assert set(with_vit["remark"]) == {"one network: no interval over networks"}
    (tested,) = rows[rows["p"].notna()].to_dict("records")
    assert tested["p_holm"] == tested["p"], "pairs without a test don't count in Holm's correction"


def test_groups_are_in_the_order_of_pretraining_images_and_of_the_grid(tmp_path):
    table = written(tmp_path, made_up_counts())["network_groups"]
    assert list(dict.fromkeys(table["group"])) == ["small", "big", "vit"]
    images = table.drop_duplicates("group").set_index("group")["pretraining_images"]
    assert images.to_dict() == {"small": 1_000, "big": 50_000, "vit": 50_000}


def test_groups_of_an_unknown_number_of_images_come_last(tmp_path):
    settings = replace_groups(GROUP_OF, images={})
    table = written(tmp_path, made_up_counts(), settings=settings)["network_groups"]
    assert list(dict.fromkeys(table["group"])) == ["small", "big", "vit"]
    assert of(table, group="vit")["pretraining_images"].isna().all()


def test_an_unfinished_network_does_not_count_for_its_method_alone(tmp_path):
    counts = made_up_counts()
    unfinished = {("big1", "ft", "a", "all", 1)}
    tables = written(tmp_path, counts, unfinished)
    counted = tables["networks"].set_index(["model", "method"])["counted"]
    assert set(counted["big1", "ft"]) == {"no"} and set(counted["big1", "lwf"]) == {"yes"}
    groups = of(tables["network_groups"], group="big", measure="mri", over="networks")
    assert groups.set_index("method")["networks"].to_dict() == {"ft": 2, "lwf": 3}
    values = values_by_hand(counts, "ft")
    mean = np.mean([values[model]["mri"] for model in ("big0", "big2")])
    assert of(groups, method="ft")["mean"].item() == pytest.approx(mean)


def test_without_any_finished_network_tables_have_no_rows(tmp_path):
    counts = made_up_counts(models=GROUPS["big"], methods=["ft"])
    unfinished = {state.run.values(RUN_COLUMNS) for state in counts.states}
    tables = written(tmp_path, counts, unfinished)
    assert tables["network_groups"].empty and tables["network_differences"].empty
    figure, shown = draw(tables)
    assert shown.empty
    assert [text.get_text() for text in figure.texts] == ["no network has finished training"]


def test_models_without_a_group_are_left_out(tmp_path):
    counts = made_up_counts(models=(*GROUPS["big"], "other"))
    tables = written(tmp_path, counts)
    assert set(tables["networks"]["model"]) == {*GROUPS["big"]}
    assert set(tables["network_groups"]["group"]) == {"big"}


def test_without_datasets_in_distribution_there_is_no_such_measure(tmp_path):
    settings = SETTINGS.model_copy(update={"in_distribution": []})
    tables = written(tmp_path, made_up_counts(models=GROUPS["big"]), settings=settings)
    measures = [measure for measure in MEASURES if measure != "in_distribution"]
    assert list(dict.fromkeys(tables["network_groups"]["measure"])) == measures


def test_the_same_counts_give_the_same_bytes(tmp_path):
    names = ("networks", "network_groups", "network_differences")
    bytes_of_calls = []
    for _ in range(2):
        written(tmp_path, made_up_counts())
        bytes_of_calls.append([(tmp_path / f"{name}.csv").read_bytes() for name in names])
    assert bytes_of_calls[0] == bytes_of_calls[1]


# The figure

STYLES = {
    "ft": {"label": "FT", "colour": "#d55e00", "marker": "o"},
    "lwf": {"label": "LwF", "colour": "#009e73", "marker": "^"},
}


def draw(tables, methods=STYLES):
    return figure_module.draw(
        tables["networks"],
        tables["network_groups"],
        models=dict.fromkeys(GROUP_OF, "Model"),
        methods=methods,
        confidence=CONFIDENCE,
    )


def intervals(axes):
    """Both ends of every interval that was drawn."""
    ends = set()
    for container in axes.containers:
        for lines in container[2]:
            # An interval that is NaN has a segment without points.
            segments = [segment for segment in lines.get_segments() if len(segment)]
            for segment in segments:
                low, high = segment[:, 1]
                ends.add((round(low, 4), round(high, 4)))
    return ends


def dots(axes):
    """Heights of the dots that were drawn."""
    return sorted(height for dots in axes.collections for height in heights_of(dots))


def heights_of(collection):
    offsets = np.ma.getdata(collection.get_offsets())
    is_scatter = type(collection).__name__ == "PathCollection"
    return offsets[:, 1].tolist() if is_scatter else []


def test_the_figure_shows_networks_means_and_intervals_over_networks(tmp_path):
    tables = written(tmp_path, made_up_counts())
    figure, shown = draw(tables)
    accuracy_axes, mri_axes = figure.axes
    groups = of(tables["network_groups"], over="networks").round(4)
    with_interval = groups[groups["ci_low"].notna()]
    for axes, measures in ((mri_axes, ["mri"]), (accuracy_axes, ["ood_before", "ood_after"])):
        rows = with_interval[with_interval["measure"].isin(measures)]
        assert intervals(axes) == set(zip(rows["ci_low"], rows["ci_high"], strict=True))
    networks = tables["networks"]
    assert dots(mri_axes) == sorted(of(networks, measure="mri")["value"])
    before = of(networks, measure="ood_before", method="ft")["value"]
    after = of(networks, measure="ood_after")["value"]
    assert dots(accuracy_axes) == sorted([*before, *after]), "before is drawn once"
    assert [label.get_text() for label in mri_axes.get_xticklabels()] == [
        "small\n3 networks",
        "big\n3 networks",
        "vit\n1 network, no interval",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "before (pretrained)",
        "FT",
        "LwF",
    ]
    assert "90% t interval over networks" in figure.get_supxlabel().replace("\n", " ")
    drawn_measures = ["mri", "ood_before", "ood_after"]
    assert set(shown["measure"]) == {*drawn_measures}
    numbers = [table["measure"].isin(drawn_measures).sum() for table in (networks, groups)]
    assert len(shown) == sum(numbers)


def test_the_figure_leaves_out_unfinished_networks_and_counts_those_of_methods(tmp_path):
    tables = written(tmp_path, made_up_counts(), unfinished={("big1", "ft", "a", "all", 1)})
    figure, shown = draw(tables)
    _, mri_axes = figure.axes
    assert len(dots(mri_axes)) == 2 * len(GROUP_OF) - 1
    assert mri_axes.get_xticklabels()[1].get_text() == "big\n2 to 3 networks"
    is_left_out = (shown["model"] == "big1") & (shown["method"] == "ft")
    assert not is_left_out.any()
    # before fine-tuning, the network counts for the other method
    assert len(dots(figure.axes[0])) == 2 * len(GROUP_OF) - 1 + len(GROUP_OF)


def test_a_method_without_finished_networks_is_drawn_nowhere(tmp_path):
    counts = made_up_counts()
    runs = [state.run.values(RUN_COLUMNS) for state in counts.states]
    tables = written(tmp_path, counts, unfinished=[run for run in runs if run[1] == "ft"])
    figure, shown = draw(tables)
    assert set(shown["method"]) == {"lwf"}
    assert len(dots(figure.axes[1])) == len(GROUP_OF)


# The rules


def test_only_a_grid_with_replicates_has_the_analysis(wiring):
    with_analysis = set()
    for name, jobs in wiring.items():
        figures = {job.wildcards.get("figure") for job in jobs if job.rule == "plot_figure"}
        has_job = any(job.rule == "compare_networks" for job in jobs)
        assert has_job == ("networks" in figures)
        (page,) = [job for job in jobs if job.rule == "write_page"]
        assert has_job == ("network_groups" in page.settings["analyses"])
        if has_job:
            with_analysis.add(name)
    assert with_analysis == {"replicates"}


def test_the_job_is_given_the_groups_and_the_numbers_of_pretraining_images(wiring):
    (job,) = [job for job in wiring["replicates"] if job.rule == "compare_networks"]
    models = ["fashion_cnn_1k", "fashion_cnn_1k_seed1", "fashion_cnn_50k"]
    assert job.settings["groups"] == dict(
        zip(models, ["CNN on 1,000", "CNN on 1,000", "CNN on 50,000"], strict=True)
    )
    assert job.settings["in_distribution"] == ["fashion"]
    assert job.settings["pretraining_images"] == {}
    assert job.inputs["descriptions"] == [
        f"results/fashion/models/{model}/model.json" for model in models
    ]

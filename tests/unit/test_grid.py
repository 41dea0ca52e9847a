"""What a config's choices come to, and how bad ones are refused."""

import json

import pyarrow as pa
import pytest
import torch
import yaml

from rib.analyses.slices.describe import errors_are_as_published
from rib.base.errors import UserError
from rib.base.params import from_params, to_params
from rib.catalog.catalog import Catalog
from rib.data.grid_views import view_of
from rib.grid.evaluation_groups import (
    evaluation_groups,
    groups_of,
    levels_of_other_parts,
    part_of_group,
)
from rib.grid.grid import resolve_grid
from rib.grid.grid_as_config import as_config, resolved
from rib.grid.leaks import (
    leak_free_groups,
    leaking_groups,
    sharing_targets,
    split_before,
)
from rib.grid.model_facts import model_facts
from rib.schema.augmentation_entries import AugmentationEntry
from rib.schema.config import config_of
from rib.schema.forms import MERGES
from rib.statistics.conditions import conditions_of
from rib.statistics.statistics_settings import fit_rule
from rib.training.training_settings import TrainingSettings, learning_rates
from tiny.projects.grids import grid, project_catalog
from tiny.projects.project import ROOT
from tiny.projects.wiring import OWN_CNN
from unit.conftest import published


def notices_on(chosen, *words):
    """Notices of a grid that contain all of these words."""

    def has_all_words(notice):
        return all(word in notice for word in words)

    return [notice for notice in chosen.notices if has_all_words(notice)]


def test_imagenets_default_grid_can_tell_the_optimiser_from_the_size_of_the_set():
    chosen = grid(family="imagenet")
    recipes = {
        name: method.recipe
        for name, method in chosen.methods.items()
        if method.name.startswith(("ft", "wise"))
    }
    fine_tuned_runs = [run for run in chosen.runs() if run.method != "pretrained"]
    runs_of_a_size = len(chosen.models) * len(chosen.methods) * len(chosen.targets)
    assert chosen.sizes == ["all", "1000"]
    assert recipes == {
        "ft": "paper",
        "ft-adamw": "adamw",
        "wise_ft": "paper",
        "wise_ft-adamw": "adamw",
    }
    assert chosen.methods["wise_ft-adamw"].parents == ("ft-adamw",)
    assert len(fine_tuned_runs) == 2 * runs_of_a_size
    assert {run.size for run in fine_tuned_runs if run.method == "ft-adamw"} == {"all", "1000"}


def test_sizes_of_config_replace_those_of_the_family():
    chosen = grid(family="imagenet", train_subset=["all"])
    assert chosen.sizes == ["all"]


@pytest.mark.parametrize(
    "choices, reference",
    [
        ({}, "ft"),
        ({"method_settings": {"ft": {"lr": [0.1, 0.2]}}}, "pretrained"),
        (
            {
                "methods": ["ft"],
                "method_settings": {"ft": {"lr": [0.1, 0.2]}},
                "compare_to": "ft-lr0.2",
            },
            "ft-lr0.2",
        ),
        ({"compare_to": "linear_probe"}, "linear_probe"),
    ],
    ids=str,
)
def test_differences_are_from_ft_unless_the_run_lacks_it_or_config_says_otherwise(
    choices, reference
):
    chosen = grid(**choices)
    assert chosen.compare_to == reference
    assert resolved(chosen)["compare_to"] == reference


@pytest.mark.parametrize("name", ["lora", "wise_ft_curve"])
def test_a_reference_that_the_run_lacks_or_that_has_no_mri_is_refused(name):
    """lora is not among the methods of the run, and a curve is no single method."""
    with pytest.raises(UserError, match="^config, compare_to: unknown method .*ft.*pretrained"):
        grid(methods=["ft", "linear_probe", "wise_ft_curve"], compare_to=name)


def test_the_full_grid_trains_and_merges_each_model_on_each_target():
    """Of the CNNs of this family, without methods for ViTs.

    With a reference, a sweep or held-out images.
    """
    # given
    chosen = grid(models="all", methods="all", targets="all", image_size=224, seeds=[0, 1])
    # when
    runs = chosen.runs()
    # then
    merging = {name for name, method in chosen.methods.items() if method.form in MERGES}
    merging_seeds = {name for name in merging if chosen.methods[name].over == "seeds"}
    training = chosen.methods.keys() - merging
    assert training and merging_seeds
    runs_of_a_model_and_target = 2 * len(chosen.methods.keys() - merging_seeds) + len(merging_seeds)
    pretrained_runs = 3
    assert len(runs) == pretrained_runs + 3 * 8 * runs_of_a_model_and_target
    assert len(set(runs)) == len(runs)


def test_recipes_multiply_the_methods():
    methods = grid(recipes=["adamw", "paper"]).methods
    assert len(methods) == 2 * len(grid().methods)
    for name in ("ft", "ft-paper", "wise_ft-alpha0.25", "wise_ft-alpha0.25-paper"):
        assert name in methods


def test_whole_photos_are_seen_of_the_datasets_that_config_names():
    # given
    default = grid(family="imagenet")
    chosen = grid(family="imagenet", uncropped=["imagenet_c"])
    model = next(iter(chosen.models))
    geometry = chosen.geometry(model)
    # when
    view_of_c = view_of(chosen, model, ["imagenet_c"])
    view_of_r = view_of(chosen, model, ["imagenet_r"])
    # then
    assert view_of_c.uncropped == ("imagenet_c",)
    assert view_of_r == view_of(default, model, ["imagenet_r"]), "not run again"
    assert geometry.crop_pct < 1


def test_a_grid_says_of_which_datasets_whole_photos_are_seen():
    default = grid(family="imagenet")
    chosen = grid(family="imagenet", uncropped=["imagenet_c"])
    assert default.uncropped == []
    assert chosen.uncropped == ["imagenet_c"]
    (condition,) = set(conditions_of(chosen)) - set(conditions_of(default))
    assert "IN-C" in condition
    assert as_config(chosen)["uncropped"] == ["imagenet_c"]


def test_whole_photos_are_seen_without_the_crop_of_the_family(with_entries):
    # given
    defaults = {**to_params(grid().family.defaults), "models": ["my_model"], "targets": ["whole"]}
    catalog = with_entries(
        families={"mine": {"defaults": defaults, "crop_pct": 0.5}},
        datasets={"whole": {"family": "mine"}, "cropped": {"family": "mine"}},
        models={"my_model": {"families": ["mine"]}},
    )

    def crop_of(chosen, dataset):
        geometry = chosen.geometry("my_model")
        assert geometry.crop_pct == 0.5
        return view_of(chosen, "my_model", [dataset]).geometry_of(dataset).crop_pct

    # when
    chosen = grid(catalog, family="mine", uncropped=["whole"])
    by_default = grid(catalog, family="mine")
    # then
    assert crop_of(chosen, "whole") == 1.0
    assert crop_of(chosen, "cropped") == 0.5
    assert crop_of(by_default, "whole") == 0.5


def test_errors_are_as_published_only_of_whole_photos_at_their_size():
    def errors_of_c_are_as_published(**choices):
        chosen = grid(family="imagenet", **choices)
        model = next(iter(chosen.models))
        return errors_are_as_published(chosen, model, "imagenet_c")

    assert errors_of_c_are_as_published(uncropped=["imagenet_c"], image_size=224) is True
    assert errors_of_c_are_as_published(image_size=224) is False
    assert errors_of_c_are_as_published(uncropped=["imagenet_r"], image_size=224) is False
    assert errors_of_c_are_as_published(uncropped=["imagenet_c"], image_size=240) is False


def test_a_part_of_an_evaluation_group_is_evaluated_beside_the_whole_group():
    # given
    some_datasets = grid(datasets=["noto", "openmoji"])
    other_datasets = grid(datasets=["noto", "twemoji"])
    all_datasets_by_name = grid(datasets=list(grid().datasets))
    # when
    (whole_group,) = evaluation_groups(grid())
    (some_group,) = evaluation_groups(some_datasets)
    (other_group,) = evaluation_groups(other_datasets)
    # then
    assert whole_group == "emoji"
    assert len({whole_group, some_group, other_group}) == 3
    assert groups_of(some_datasets, "noto") == [some_group]
    assert list(evaluation_groups(all_datasets_by_name)) == ["emoji"], "it is the same group"


PARTS_OF_C = ["imagenet_c-noise", "imagenet_c-blur", "imagenet_c-weather", "imagenet_c-digital"]


def test_each_part_of_a_dataset_is_an_evaluation_group():
    # given
    chosen = grid(family="imagenet", datasets=["imagenet_r", "imagenet_c"])
    # when
    group_of_r, *groups_of_c = evaluation_groups(chosen)
    # then
    assert groups_of(chosen, "imagenet_r") == [group_of_r]
    assert groups_of(chosen, "imagenet_c") == groups_of_c == PARTS_OF_C
    for group in PARTS_OF_C:
        assert evaluation_groups(chosen)[group] == ["imagenet_c"]


def test_a_part_has_some_levels_of_a_dataset():
    # given
    chosen = grid(family="imagenet", datasets=["imagenet_r", "imagenet_c"])
    # when
    group_of_r, *_ = evaluation_groups(chosen)
    levels = {group: part_of_group(chosen, group)["levels"] for group in PARTS_OF_C}
    # then
    assert part_of_group(chosen, group_of_r) is None
    assert levels["imagenet_c-noise"] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert list(map(len, levels.values())) == [3, 4, 4, 4]
    for group in PARTS_OF_C:
        levels_of_others = []
        for other_group in PARTS_OF_C:
            if other_group != group:
                levels_of_others += levels[other_group]
        assert levels_of_other_parts(chosen, group) == levels_of_others


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"family": "imagenet"},
        {
            "methods": ["lora", "soup"],
            "method_settings": {"lora": {"rank": [4, 8]}},
            "seeds": [0, 1],
        },
        {"train_subset": ["all", 10, 0.25]},
        {"recipes": "all", "methods": "all"},
        {"family": "imagenet", "reference": "none", "leak_free": True, "training": {"epochs": 3}},
        {"family": "fashion", "image_size": "native"},
    ],
    ids=str,
)
def test_the_configuration_that_a_page_shows_gives_the_same_grid(choices):
    shown = grid(**choices)
    text_of_page = yaml.safe_dump(as_config(shown))
    pasted = grid(**yaml.safe_load(text_of_page))
    assert pasted.runs() == shown.runs()
    assert pasted.methods == shown.methods
    assert resolved(pasted) == resolved(shown)


def test_sizes_and_seeds_multiply_the_fine_tuned_runs_only():
    chosen = grid(
        models=["efficientnet_lite0"],
        methods=["ft"],
        targets=["noto"],
        train_subset=[0.5, "all", "50"],
        seeds=[3, 4],
    )
    assert [(run.method, run.size, run.seed) for run in chosen.runs()] == [
        ("pretrained", "all", 0),
        ("ft", "0.5", 3),
        ("ft", "0.5", 4),
        ("ft", "all", 3),
        ("ft", "all", 4),
        ("ft", "50", 3),
        ("ft", "50", 4),
    ]
    assert chosen.shown_size == "all"


@pytest.mark.parametrize("train", [0.9, 0.55])
def test_splits_that_leave_nothing_to_test_are_refused(train):
    def held_out(select):
        split = {"train": train, "select": round(select, 4)}
        return grid(family="imagenet", protocol="held_out", split=split)

    for nothing_left in (1 - train, 0.5):
        with pytest.raises(UserError, match="config, split"):
            held_out(nothing_left)
    chosen = held_out(0.9999 - train)
    assert 0.99 < sum(chosen.split_fractions.values()) < 1


def test_leak_free_leaves_shared_sources_out_unless_they_were_held_out():
    groups = leak_free_groups(grid(family="imagenet", leak_free=True))
    leaking = grid(family="imagenet")
    held_out = grid(family="imagenet", leak_free=True, protocol="held_out")
    assert groups["imagenet_cartoon"] == groups["imagenet_c"] == groups["imagenet_val"]
    assert "imagenet_v2" not in groups
    assert leak_free_groups(leaking) is None
    assert leak_free_groups(held_out) is None


def test_images_leak_where_a_target_shares_them_and_they_are_not_left_out():
    chosen = {"datasets": ["noto", "noto_corrupted", "openmoji"], "targets": ["noto", "openmoji"]}
    leaking = grid(**chosen)
    alone = grid(datasets=["noto", "openmoji"], targets=["noto", "openmoji"])
    assert sharing_targets(leaking) == ["noto"]
    assert leaking_groups(leaking) == {"noto": "noto", "noto_corrupted": "noto"}
    assert leaking_groups(grid(**chosen, leak_free=True)) is None
    held_out = grid(family="imagenet", protocol="held_out")
    assert "imagenet_cartoon" in sharing_targets(held_out)
    assert leaking_groups(held_out) is None
    assert leaking_groups(grid(family="imagenet")) is not None
    assert sharing_targets(alone) == []
    assert leaking_groups(alone) is None


def test_a_dataset_is_split_after_those_before_it_that_share_its_sources():
    chosen = grid(family="imagenet", protocol="held_out")
    with_all = grid(family="imagenet", protocol="held_out", datasets="all")
    assert split_before(chosen, "imagenet_val") == []
    assert split_before(chosen, "imagenet_r") == []
    assert split_before(chosen, "imagenet_drawing") == ["imagenet_val", "imagenet_cartoon"]
    *_, last_before_extra = split_before(with_all, "imagenet_c_extra")
    assert last_before_extra == "imagenet_c"
    assert split_before(with_all, "imagenet_val") == []


def test_conditions_name_the_budget_and_what_is_left_out():
    # given
    budget = {"max_images_per_dataset": 73}
    # when
    conditions = "; ".join(conditions_of(grid(family="imagenet", budget=budget, leak_free=True)))
    conditions_of_default = "; ".join(conditions_of(grid(family="imagenet")))
    # then
    assert "73 images" in conditions
    assert "leak-free" in conditions
    assert "paper" in conditions
    assert "73" not in conditions_of_default
    assert "leak-free" not in conditions_of_default


def test_leak_free_without_effect_is_said_and_is_no_condition():
    """Under held_out, no scored image shares its source with one that was trained on."""
    # given
    held_out = grid(family="imagenet", protocol="held_out")
    held_out_and_leak_free = grid(family="imagenet", protocol="held_out", leak_free=True)
    leak_free = grid(family="imagenet", leak_free=True)
    # then
    assert "leak-free" not in "; ".join(conditions_of(held_out_and_leak_free))
    (notice,) = set(held_out_and_leak_free.notices) - set(held_out.notices)
    assert "leak_free" in notice
    assert "held_out" in notice
    assert notices_on(leak_free, "leak_free") == []


def test_fewer_datasets_leave_fewer_default_targets_and_conditions_say_so():
    chosen = grid(datasets=["noto", "twemoji", "fluent_3d"])
    conditions = conditions_of(chosen)
    assert chosen.targets == ["noto"]
    assert list(chosen.datasets) == ["noto", "twemoji", "fluent_3d"]
    assert any(phrase.startswith("without OpenMoji, Fluent flat") for phrase in conditions)


def test_a_list_of_values_sweeps_and_names_its_variants():
    # given
    settings = {"lora": {"rank": [4, 8], "lr": ["1e-5", 0.5]}}
    # when
    methods = grid(methods=["lora"], method_settings=settings).methods
    # then
    assert set(methods) == {
        "lora-lr0.00001-rank4",
        "lora-lr0.00001-rank8",
        "lora-lr0.5-rank4",
        "lora-lr0.5-rank8",
    }
    assert methods["lora-lr0.00001-rank4"].settings["lr"] == 1e-5
    assert methods["lora-lr0.5-rank8"].settings["rank"] == 8
    assert methods["lora-lr0.5-rank8"].label == "LoRA, lr 0.5, rank 8"


def parents_of_methods(*args, **choices):
    """The parents of each method of a grid, by name; arguments are those of `grid`."""
    methods = grid(*args, **choices).methods
    return {name: method.parents for name, method in methods.items()}


def evaluations(**choices):
    """Of each method of a grid, the job that evaluates it, and all methods in that job."""
    methods = grid(**choices).methods
    return {name: (method.evaluation, [*method.evaluated]) for name, method in methods.items()}


LISTED = ["wise_ft-alpha0.25", "wise_ft-alpha0.5", "wise_ft-alpha0.75"]  # by the family


@pytest.mark.parametrize("alphas", [None, [0.25, 0.5, 0.75], [0.5], [0.75, 0.25]])
def test_averages_that_the_family_lists_are_evaluated_together_whichever_config_names(alphas):
    # given
    settings = {} if alphas is None else {"wise_ft": {"alpha": alphas}}
    # when
    chosen = grid(methods=["ft", "linear_probe", "wise_ft"], method_settings=settings)
    # then
    averages = {name for name in chosen.methods if name.startswith("wise_ft")}
    assert averages == {f"wise_ft-alpha{alpha}" for alpha in alphas or [0.25, 0.5, 0.75]}
    for name in averages:
        assert chosen.evaluation_of(name) == "wise_ft-alpha"
        assert chosen.methods[name].evaluated == {
            "wise_ft-alpha0.25": {"alpha": 0.25},
            "wise_ft-alpha0.5": {"alpha": 0.5},
            "wise_ft-alpha0.75": {"alpha": 0.75},
        }
    # and what is trained has a job of its own
    for name in ("pretrained", "ft", "linear_probe"):
        assert chosen.evaluation_of(name) == name
    assert list(chosen.methods["ft"].evaluated) == ["ft"]


def test_an_average_that_only_config_names_is_evaluated_alone():
    in_a_list = evaluations(methods=["wise_ft"], method_settings={"wise_ft": {"alpha": [0.5, 0.9]}})
    assert in_a_list["wise_ft-alpha0.5"] == ("wise_ft-alpha", LISTED)
    assert in_a_list["wise_ft-alpha0.9"] == ("wise_ft-alpha0.9", ["wise_ft-alpha0.9"])
    # even if the family lists the same alpha, since its name has none
    without_a_list = evaluations(methods=["wise_ft"], method_settings={"wise_ft": {"alpha": 0.5}})
    assert without_a_list["wise_ft"] == ("wise_ft", ["wise_ft"])


def test_averages_of_a_swept_parent_are_evaluated_by_a_job_for_each_of_its_variants():
    of_methods = evaluations(methods=["wise_ft"], method_settings={"ft": {"lr": [0.1, 0.2]}})
    for rate in (0.1, 0.2):
        averages = [f"{name}-lr{rate}" for name in LISTED]
        for name in averages:
            assert of_methods[name] == (f"wise_ft-alpha-lr{rate}", averages)


def test_merges_that_are_no_averages_are_evaluated_alone():
    of_methods = evaluations(
        methods=["wise_ft_curve", "ties"], method_settings={"ties": {"density": [0.1, 0.2]}}
    )
    assert of_methods["wise_ft_curve"] == ("wise_ft_curve", ["wise_ft_curve"])
    assert of_methods["ties-density0.2"] == ("ties-density0.2", ["ties-density0.2"])


def test_a_method_that_depends_on_a_swept_one_is_swept_with_it():
    # given
    settings = {"ft": {"lr": [0.1, 0.2]}, "linear_probe": {"lr": [1, 2]}, "wise_ft": {"alpha": 0.5}}
    # when
    parents = parents_of_methods(methods=["wise_ft", "lp_ft"], method_settings=settings)
    # then
    assert parents["wise_ft-lr0.2"] == ("ft-lr0.2",)
    assert parents["lp_ft-lr1"] == ("linear_probe-lr1",)
    assert len(parents) == 2 + 2 + 2 + 2
    assert "ft" not in parents


def test_parents_swept_over_the_same_setting_are_told_apart():
    # given
    settings = {"ft": {"lr": [0.1, 0.2]}, "lwf": {"lr": [0.3, 0.4]}}
    # when
    parents = parents_of_methods(methods=["soup"], method_settings=settings)
    # then
    soups = [name for name in parents if "soup" in name]
    assert len(soups) == 4
    assert parents["soup-ft_lr0.1-lwf_lr0.4"] == ("ft-lr0.1", "ewc", "lwf-lr0.4")


def test_a_method_and_its_parent_swept_over_the_same_setting_are_told_apart():
    # given
    settings = {"lp_ft": {"lr": [1, 2]}, "linear_probe": {"lr": [3, 4]}}
    # when
    methods = grid(methods=["lp_ft"], method_settings=settings).methods
    # then
    method = methods["lp_ft-lr1-linear_probe_lr4"]
    assert method.settings["lr"] == 1
    assert method.parents == ("linear_probe-lr4",)
    assert len(methods) == 6


def names_without_rate(methods, **settings):
    """Names of a grid's methods without their own swept rate, by name."""
    chosen = grid(methods=methods, method_settings=settings)
    return {name: method.without_rate for name, method in chosen.methods.items()}


def test_the_name_without_a_methods_own_rate_keeps_the_rates_of_its_parents():
    # given
    of_probe = {"lr": [0.01, 0.015]}
    # when
    of_parent_only = names_without_rate(["lp_ft"], linear_probe=of_probe, lp_ft={"lr": 0.01})
    of_both = names_without_rate(["lp_ft"], linear_probe=of_probe, lp_ft={"lr": [0.01, 0.1]})
    with_other_settings = names_without_rate(["lora"], lora={"rank": [4, 40], "lr": [0.1]})
    # then
    assert of_parent_only["linear_probe-lr0.01"] == "linear_probe"
    assert of_parent_only["linear_probe-lr0.015"] == "linear_probe"
    assert of_parent_only["lp_ft-lr0.01"] == "lp_ft-lr0.01"
    assert of_parent_only["lp_ft-lr0.015"] == "lp_ft-lr0.015"
    assert of_both["lp_ft-lr0.01-linear_probe_lr0.015"] == "lp_ft-linear_probe_lr0.015"
    assert of_both["lp_ft-lr0.1-linear_probe_lr0.015"] == "lp_ft-linear_probe_lr0.015"
    assert with_other_settings["lora-lr0.1-rank40"] == "lora-rank40"


def test_a_merge_of_a_method_that_starts_from_another_brings_both_and_their_sweeps(with_entries):
    # given
    soup_of_lp_ft = {
        "algorithm": "soup",
        "form": "coefficients",
        "recipes": None,
        "parents": ["lp_ft"],
    }
    catalog = with_entries(methods={"mine": soup_of_lp_ft})
    sweep = {"linear_probe": {"lr": [1, 2]}}
    # when
    parents = parents_of_methods(catalog, methods=["mine"])
    parents_in_sweep = parents_of_methods(catalog, methods=["mine"], method_settings=sweep)
    # then
    assert list(parents) == ["linear_probe", "lp_ft", "mine"]
    assert parents_in_sweep["mine-lr2"] == ("lp_ft-lr2",)
    assert parents_in_sweep["lp_ft-lr2"] == ("linear_probe-lr2",)


def test_a_family_has_settings_of_its_own_which_config_overrides():
    # given
    settings = project_catalog().methods["ft"].settings
    # when
    of_family = grid(methods=["ft"]).methods["ft"]
    of_config = grid(methods=["ft"], method_settings={"ft": {"lr": 3}}).methods["ft"]
    # then
    assert of_family.settings == {**settings, "lr": 0.0001}
    assert of_config.settings["lr"] == 3


def test_a_family_has_a_grid_and_settings_of_its_own_which_config_overrides(with_entries):
    # given
    entries = project_catalog().methods
    catalog = own_family(with_entries, method_settings={"lwf": {"temperature": 9}}, recipes={})
    # when
    chosen = grid(catalog, family="mine", methods=["ft", "lwf"], recipes=["paper"])
    # then
    assert list(chosen.models) == ["my_model"]
    assert chosen.targets == ["my_set"]
    ft = entries["ft"]
    lwf = entries["lwf"]
    settings_of_ft = {**ft.settings, **ft.recipes["paper"]}
    settings_of_lwf = {**lwf.settings, **lwf.recipes["paper"], "temperature": 9}
    assert chosen.methods["ft-paper"].settings == settings_of_ft
    assert chosen.methods["lwf-paper"].settings == settings_of_lwf


def test_a_parent_is_added_with_a_notice():
    chosen = grid(methods=["wise_ft"], method_settings={"wise_ft": {"alpha": 0.5}})
    assert list(chosen.methods) == ["ft", "wise_ft"]
    (notice,) = chosen.notices
    assert "'ft'" in notice
    assert "'wise_ft'" in notice


NOT_HERE = [
    ("greedy_soup", "held_out"),
    ("replay", "reference"),
    ("lora_released", "vit"),
    ("flyp", "text tower"),
]


@pytest.mark.parametrize(("method", "why"), NOT_HERE)
def test_a_method_that_cannot_be_run_is_left_out_with_a_notice_or_refused_by_name(method, why):
    chosen = grid(methods="all")
    assert method not in chosen.methods
    assert notices_on(chosen, f"'{method}'", why)
    with pytest.raises(UserError, match=f"config, methods: '{method}'.*{why}"):
        grid(methods=["ft", method])


def test_models_of_both_types_each_have_the_methods_that_are_for_them(with_entries):
    """A soup of lora_released, which is for ViTs, is left out on a CNN.

    There is nothing to average.
    """
    # given
    soup = {
        "algorithm": "soup",
        "form": "coefficients",
        "recipes": None,
        "parents": ["lora_released", "ft"],
    }
    catalog = with_entries(models={"my_vit": {"type": "vit"}}, methods={"mine": soup})
    cnn = "efficientnet_lite0"
    # when
    chosen = grid(catalog, models=[cnn, "my_vit"], methods=["mine", "lwf"], recipes="paper")
    # then
    assert set(catalog.methods["mine"].types) == {"cnn", "vit"}
    methods_of_vit = set(chosen.methods_of("my_vit"))
    assert methods_of_vit == {"lora_released", "ft-paper", "mine-paper", "lwf-paper"}
    assert chosen.methods_of(cnn) == ["ft-paper", "lwf-paper"]
    runs = {(run.model, run.method) for run in chosen.runs()}
    for method in ("mine-paper", "lora_released"):
        assert ("my_vit", method) in runs
        assert (cnn, method) not in runs
        assert notices_on(chosen, f"'{method}'", f"'{cnn}'")


def test_a_soup_of_methods_with_different_recipes_is_refused(with_entries):
    # given: ft is trained with adamw here, lora_released always with paper
    soup = {
        "algorithm": "soup",
        "form": "coefficients",
        "recipes": None,
        "parents": ["lora_released", "ft"],
    }
    catalog = with_entries(models={"my_vit": {"type": "vit"}}, methods={"mine": soup})
    # then
    with pytest.raises(UserError, match="config, recipes: .*'mine'"):
        grid(catalog, models=["efficientnet_lite0", "my_vit"], methods=["mine", "lwf"])


def catalog_with_texts(with_entries):
    """A catalogue with a model with a text tower, `my_clip`, and a merge of flyp, `mine`."""
    merge = {
        "algorithm": "wise_ft",
        "form": "coefficients",
        "recipes": None,
        "parents": ["flyp"],
        "settings": {"alpha": 0.5},
        "can_fit": None,
    }
    model = {"library": "open_clip", "head": "zero_shot"}
    return with_entries(models={"my_clip": model}, methods={"mine": merge})


def test_methods_that_train_with_texts_are_for_models_with_a_text_tower(with_entries):
    """And so are merges of them.

    A fitted head in place of the zero-shot one leaves no use for the tower.
    """
    # given
    catalog = catalog_with_texts(with_entries)
    models = ["efficientnet_lite0", "my_clip"]
    # when
    chosen = grid(catalog, models=models, methods=["ft", "mine"], recipes="paper")
    # then
    assert chosen.methods_of("my_clip") == ["ft-paper", "flyp-paper", "mine-paper"]
    assert chosen.methods_of("efficientnet_lite0") == ["ft-paper"]
    for method in ("flyp-paper", "mine-paper"):
        assert notices_on(chosen, f"'{method}'", "'efficientnet_lite0'", "text tower")


def test_methods_that_train_with_texts_are_refused_if_no_model_has_a_text_tower(with_entries):
    catalog = catalog_with_texts(with_entries)
    message = "'mine'.* 'flyp'"
    with pytest.raises(UserError, match=message):
        grid(catalog, models=["efficientnet_lite0"], methods=["ft", "mine"], recipes="paper")


def test_a_method_whose_parent_cannot_be_run_is_left_out_too(with_entries):
    # given
    soup = {
        "algorithm": "soup",
        "form": "coefficients",
        "recipes": None,
        "parents": ["ft", "replay"],
    }
    # when
    chosen = grid(with_entries(methods={"mine": soup}), methods="all")
    # then
    assert "mine" not in chosen.methods
    assert "replay" not in chosen.methods
    assert notices_on(chosen, "'mine'", "'replay'", "reference")


def test_a_dataset_that_is_never_a_target_is_evaluated_and_counts_in_ri(with_entries):
    # given
    catalog = with_entries(datasets={"mine": {"never_target": "a network fails on it"}})
    # when
    chosen = grid(catalog, targets="all")
    # then
    assert "mine" in chosen.ood
    assert "mine" not in chosen.targets
    assert notices_on(chosen, "'mine'", "a network fails")
    with pytest.raises(UserError, match="config, targets: 'mine'.*a network fails on it"):
        grid(catalog, targets=["mine"])


def test_a_dataset_whose_licence_forbids_tuning_is_a_target_only_once_its_terms_are_accepted(
    with_entries,
):
    # given
    tuning = {"accept": "mine_tuning", "terms": "It forbids tuning."}
    catalog = with_entries(datasets={"mine": {"tuning": tuning}})
    # when
    not_accepted = grid(catalog, targets="all")
    accepted = grid(catalog, targets="all", accept_terms=["mine_tuning"])
    # then
    assert "mine" not in not_accepted.targets
    assert "mine" in not_accepted.ood
    assert notices_on(not_accepted, "'mine'", "It forbids tuning.")
    assert "mine" in accepted.targets
    assert notices_on(accepted, "'mine'", "mine_tuning")
    with pytest.raises(UserError, match="config, targets: 'mine'.*It forbids tuning.*mine_tuning"):
        grid(catalog, targets=["mine"])


def test_an_optional_dataset_is_there_when_named_and_a_variant_counts_without_its_original(
    with_entries,
):
    """A variant counts in RI only then."""
    # given
    catalog = with_entries(datasets={"mine": {"optional": True, "variant_of": "noto"}})
    # when
    default = grid(catalog)
    with_original = grid(catalog, datasets="all", targets="all")
    without_original = grid(catalog, datasets=["mine", "twemoji"], targets=["twemoji"])
    # then
    assert "mine" not in default.datasets
    assert "mine" in with_original.datasets
    assert "mine" not in with_original.ood
    assert "mine" not in with_original.targets
    assert without_original.ood == ["twemoji", "mine"]
    assert "RI with Noto" in conditions_of(without_original)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_and_r_among_all_classes_are_their_photos_and_have_no_part_in_ri(name):
    # given
    chosen = grid(family="imagenet", datasets="all", targets="all")
    # when
    original = chosen.datasets[name]
    among_all = chosen.datasets[f"{name}_1000"]
    # then
    assert name in chosen.ood
    assert among_all.name not in chosen.ood
    assert among_all.name not in chosen.targets
    assert among_all.archives == original.archives
    assert among_all.images == original.images
    assert among_all.source_group == name
    classes = chosen.catalog.label_space(original).keys
    all_classes = chosen.catalog.label_space(among_all).keys
    assert len(classes) == 200
    assert len(all_classes) == 1000
    assert set(classes) < set(all_classes)


def test_corrupted_noto_shares_its_sources_and_is_there_only_when_named():
    # given
    default = grid()
    with_all = grid(datasets="all", targets="all")
    # when
    chosen = grid(datasets=["noto", "noto_corrupted", "openmoji"], leak_free=True)
    # then
    assert "noto_corrupted" not in default.datasets
    assert "noto_corrupted" not in with_all.targets
    assert set(chosen.ood) == set(chosen.datasets)
    assert evaluation_groups(chosen)["noto_corrupted"] == ["noto_corrupted"]
    assert leak_free_groups(chosen) == {"noto": "noto", "noto_corrupted": "noto"}


def test_a_dataset_in_distribution_is_evaluated_and_is_neither_target_nor_part_of_ri(with_entries):
    # given
    catalog = with_entries(datasets={"mine": {"role": "in_distribution"}})
    # when
    chosen = grid(catalog, targets="all")
    # then
    assert "mine" in chosen.datasets
    assert "mine" not in chosen.targets
    assert "mine" not in chosen.ood
    with pytest.raises(UserError, match="config, targets: 'mine'"):
        grid(catalog, targets=["mine"])


def test_a_model_pretrained_here_is_for_its_own_family(tmp_path):
    # given
    (tmp_path / "models.yaml").write_text(OWN_CNN)
    catalog = Catalog([ROOT / "workflow/catalog", tmp_path])
    # when
    chosen = grid(catalog, family="fashion", models=["own_cnn"])
    # then
    assert chosen.head("own_cnn") == "pretrained"
    *_, last_dataset_read = chosen.datasets_read()
    assert last_dataset_read.name == "fashion_train"
    assert "fashion_train" not in chosen.datasets
    with pytest.raises(UserError, match="config, models: 'own_cnn'.*fashion.*emoji"):
        grid(catalog, models=["own_cnn"])


FASHION_TRAINING = {
    "dataset": "fashion_train",
    "test": "fashion",
    "size": 60,
    "steps": 40,
    "batch_size": 16,
    "lr": 0.002,
}


def fashion_networks(with_entries, **changes_by_name):
    """A catalogue with copies of a network of `fashion`, each with keys of `pretrain` changed.

    None takes a key away. Their group is that of the network, which has rates, if none is given.
    """
    original = to_params(project_catalog().models["fashion_cnn_1k"])
    copied_keys = ("families", "label", "type", "pretraining", "architecture", "preprocessing")
    copied = {key: original[key] for key in copied_keys}
    models = {}
    for name, changes in changes_by_name.items():
        group = changes.pop("group", original["group"])
        training = {**FASHION_TRAINING, **changes}
        pretrain = {key: setting for key, setting in training.items() if setting is not None}
        models[name] = {
            **copied,
            "source": None,
            "weights": None,
            "group": group,
            "pretrain": pretrain,
        }
    return with_entries(models=models)


def training_settings(catalog, model):
    """The settings with which a network of `fashion` is pretrained."""
    chosen = grid(catalog, family="fashion", models=[model])
    return from_params(TrainingSettings, chosen.pretraining(model))


def test_each_field_of_an_augmentation_that_images_depend_on_is_in_the_settings_of_a_pretraining(
    with_entries,
):
    """A label or a source is not, so that its change trains nothing again."""
    # given
    broad = published("augmentations.yaml")["broad"]
    transforms = broad["transforms"]
    without_one = dict(list(transforms.items())[1:])
    in_another_order = dict(reversed(transforms.items()))
    with_another_argument = {**transforms, "GaussianNoise": {"sigma": 0.2}}
    changed_entries = [broad, {**broad, "most": 1}]
    for changed_transforms in (without_one, in_another_order, with_another_argument):
        changed_entries.append({**broad, "transforms": changed_transforms})
    entries = {f"changed{number}": entry for number, entry in enumerate(changed_entries)}
    entries["renamed"] = {**broad, "label": "Other", "source": "another"}
    _ = with_entries(augmentations=entries)
    catalog = fashion_networks(
        with_entries, **{f"by_{name}": {"augmentation": name} for name in entries}
    )
    # when
    settings = {}
    for name in entries:
        chosen = grid(catalog, family="fashion", models=[f"by_{name}"])
        settings[name] = model_facts(chosen, f"by_{name}")["pretrain"]["augmentation"]
    # then
    assert settings.pop("renamed") == settings["changed0"]
    distinct_settings = {json.dumps(values, sort_keys=True) for values in settings.values()}
    assert len(distinct_settings) == len(changed_entries)
    # and these were all fields
    assert set(AugmentationEntry.model_fields) == {"name", "label", "source", "most", "transforms"}


def test_a_pretraining_has_the_settings_of_its_recipe_or_of_sgd(with_entries):
    # given
    catalog = fashion_networks(
        with_entries,
        by_recipe={"recipe": "adamw", "shift": 2, "seed": 7},
        by_sgd={"steps": None, "epochs": 220, "weight_decay": 0.0005},
    )
    # when
    by_recipe = training_settings(catalog, "by_recipe")
    by_sgd = training_settings(catalog, "by_sgd")
    # then
    assert by_recipe.optimizer == "adamw"
    assert by_recipe.clip_norm == 1.0
    assert by_recipe.weight_decay == 0.1
    assert by_recipe.epochs is None
    assert by_recipe.steps == 40
    assert by_recipe.batch_size == 16
    assert by_recipe.micro == 16, "BatchNorm needs whole batches"
    assert by_sgd.optimizer == "sgd"
    assert by_sgd.momentum == 0.9
    assert by_sgd.weight_decay == 0.0005
    assert by_sgd.epochs == 220
    assert by_sgd.steps is None
    assert by_sgd.clip_norm is None
    rates = list(learning_rates(1.0, 10_000, by_sgd))
    step_of_highest_rate = rates.index(max(rates))
    assert step_of_highest_rate == 999, "only the fraction bounds the warm-up"


def test_a_models_proxy_is_the_part_that_it_was_pretrained_on(with_entries):
    # given
    catalog = fashion_networks(with_entries, first={"seed": 0}, second={"seed": 9, "size": 0.5})
    chosen = grid(catalog, family="fashion", models=["first", "second"])
    # when
    view_of_first = view_of(chosen, "first", [])
    view_of_second = view_of(chosen, "second", [])
    # then
    assert view_of_first.pretraining_size == "60"
    assert view_of_first.pretraining_seed == 0
    assert view_of_second.pretraining_size == "0.5"
    assert view_of_second.pretraining_seed == 9


@pytest.mark.parametrize(
    ("size", "budget", "available"),
    [(50_001, "all", 50_000), (101, 100, 100), (60_000, 55_000, 50_000)],
)
def test_pretraining_on_more_images_than_there_are_is_refused(
    with_entries, size, budget, available
):
    catalog = fashion_networks(with_entries, mine={"size": size})
    limit = {"max_images_per_dataset": budget}
    message = rf"mine: pretrain\.size is {size}.*fashion_train.*{available}"
    with pytest.raises(UserError, match=message):
        grid(catalog, family="fashion", models=["mine"], budget=limit)


MODELS_IN_GROUPS = ["one", "two", "three"]


@pytest.fixture
def catalog_with_groups(with_entries):
    """A catalogue with networks of `fashion`, of which one and two are in the group `small`."""
    return fashion_networks(with_entries, one={"group": "small"}, two={"group": "small"}, three={})


def fine_tuned_with(catalog, rates, models=MODELS_IN_GROUPS):
    """A grid in which the learning rate of ft, on which wise_ft depends, is stated.

    Args:
        rates: a rate, or one by model or group.
    """
    return grid(
        catalog,
        family="fashion",
        models=models,
        methods=["ft", "wise_ft"],
        method_settings={"ft": {"lr": rates}},
    )


def test_a_rate_by_model_or_group_is_that_models_alone(catalog_with_groups):
    # given
    rates = {"small": 0.1, "two": "2e-1", "three": 0.3}
    # when
    chosen = fine_tuned_with(catalog_with_groups, rates)
    # then
    rates_of_models = {model: chosen.settings_on("ft", model)["lr"] for model in MODELS_IN_GROUPS}
    assert rates_of_models == {"one": 0.1, "two": 0.2, "three": 0.3}
    shown_config = config_of(as_config(chosen), "config.yaml")
    pasted = resolve_grid(shown_config, catalog_with_groups)
    assert resolved(pasted) == resolved(chosen)
    assert pasted.methods == chosen.methods


def test_a_rate_for_other_models_is_that_of_models_without_their_own(catalog_with_groups):
    # given
    rates = {"one": 0.1, "small": 0.2, "other": "3e-1"}
    # when
    chosen = fine_tuned_with(catalog_with_groups, rates)
    # then
    rates_of_models = {model: chosen.settings_on("ft", model)["lr"] for model in MODELS_IN_GROUPS}
    assert rates_of_models == {"one": 0.1, "two": 0.2, "three": 0.3}
    merges = [name for name in chosen.methods if name != "ft"]
    assert merges
    assert fit_rule(chosen).other_rates == {"three": ["ft", *merges]}
    assert fit_rule(fine_tuned_with(catalog_with_groups, 0.1)).other_rates == {}


def test_a_model_called_other_may_not_meet_a_rate_for_other_models(with_entries):
    catalog = fashion_networks(with_entries, other={}, one={})
    with pytest.raises(UserError, match="ft, lr: 'other' holds for all models .* rename"):
        fine_tuned_with(catalog, {"other": 0.1}, models=["one", "other"])


def test_all_methods_run_on_all_networks_of_fashion_and_on_ones_own(with_entries):
    # given
    catalog = fashion_networks(with_entries, mine={"group": "my group"})
    # when
    chosen = grid(catalog, family="fashion", models="all", methods="all")
    default = grid(catalog, family="fashion")
    # then
    trained = [name for name in chosen.methods_of("mine") if chosen.methods[name].trains]
    stated_by_model = [
        name for name in trained if isinstance(chosen.methods[name].settings["lr"], dict)
    ]
    rates = {name: chosen.settings_on(name, "mine")["lr"] for name in stated_by_model}
    rates_of_closest = {
        name: chosen.settings_on(name, "fashion_cnn_50k")["lr"] for name in stated_by_model
    }
    assert len(stated_by_model) == len(chosen.family.recipes["adamw"])
    assert rates == rates_of_closest
    other_rates = fit_rule(chosen).other_rates
    assert set(stated_by_model) <= set(other_rates["mine"])
    assert "visual_prompt" in other_rates["fashion_cnn_1k"]
    assert "ft" not in other_rates["fashion_cnn_1k"]
    assert "ft" not in other_rates["fashion_cnn_50k"]
    assert fit_rule(default).other_rates == {}


def test_rates_by_model_are_no_sweep_and_change_nothing_else(catalog_with_groups):
    # given
    rates = {"small": 0.1, "two": "2e-1", "three": 0.3}
    # when
    chosen = fine_tuned_with(catalog_with_groups, rates)
    same_everywhere = fine_tuned_with(catalog_with_groups, 0.1)
    fewer_models = fine_tuned_with(catalog_with_groups, {"small": 0.1}, models=["one"])
    # then
    settings = chosen.settings_on("ft", "one")
    settings_if_same = same_everywhere.settings_on("ft", "one")
    assert list(chosen.methods) == list(same_everywhere.methods)
    assert settings == settings_if_same
    assert list(settings) == list(settings_if_same)
    assert fewer_models.settings_on("ft", "one") == settings


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"small": 0.1}, "'ft'.* for small, .*'three'"),
        ({"small": 0.1, "thre": 0.3}, "method_settings, ft, lr: .*'thre'.*'three'"),
        ({"small": 0.1, "three": [0.1]}, "ft: .*'lr' of 'three' is"),
        ({"small": 0.1, "three": "fast"}, "ft: .*'lr' of 'three' is 'fast'"),
        ({}, "ft: .*'lr' is an empty mapping"),
    ],
    ids=str,
)
def test_rates_that_lack_a_model_or_are_for_none_are_refused(with_entries, rates, message):
    catalog = fashion_networks(with_entries, one={"group": "small"}, three={})
    choices = {"family": "fashion", "models": ["one", "three"], "methods": ["ft"]}
    with pytest.raises(UserError, match=message):
        grid(catalog, **choices, method_settings={"ft": {"lr": rates}})


def test_a_family_may_state_rates_by_group(with_entries):
    # given
    rates = {"lite": 0.02, "big": 0.01}
    defaults = {
        **to_params(grid().family.defaults),
        "models": ["small_net", "large_net"],
        "targets": ["my_set"],
    }
    catalog = with_entries(
        families={"mine": {"defaults": defaults, "recipes": {"adamw": {"ft": {"lr": rates}}}}},
        datasets={"my_set": {"family": "mine"}},
        models={"small_net": {"group": "lite"}, "large_net": {"group": "big"}},
    )
    # when
    chosen = grid(catalog, family="mine", methods=["ft"])
    # then
    rates_of_models = {name: chosen.settings_on("ft", name)["lr"] for name in chosen.models}
    assert rates_of_models == {"small_net": 0.02, "large_net": 0.01}


def own_family(with_entries, models=("mine",), head="published", **changes):
    """A catalogue with a family that has one model and one dataset."""
    defaults = {**to_params(grid().family.defaults), "models": ["my_model"], "targets": ["my_set"]}
    return with_entries(
        families={"mine": {"defaults": defaults, **changes}},
        datasets={"my_set": {"family": "mine"}},
        models={"my_model": {"families": list(models), "head": head}},
    )


@pytest.mark.parametrize(
    ("family", "choices", "message"),
    [
        ({"models": ["emoji"]}, {"models": "all"}, "config, models: .*mine"),
        ({"head": "none"}, {}, "config, models: 'my_model'.*reference"),
        ({"method_settings": {"lwff": {}}}, {}, "families/mine.yaml, method_settings: .*'lwff'"),
        (
            {"method_settings": {"lwf": {"temp": 1}}},
            {},
            "families/mine.yaml, method_settings, lwf: .*'temp'",
        ),
    ],
)
def test_a_family_that_cannot_be_run_is_explained(with_entries, family, choices, message):
    with pytest.raises(UserError, match=message):
        grid(own_family(with_entries, **family), family="mine", **choices)


@pytest.mark.parametrize(
    ("reference", "budget"),
    [
        ("my_photos", {"default": 200, "my_set": "all"}),
        ({"part_of": "my_set", "images_per_class": 1}, "all"),
    ],
    ids=str,
)
def test_too_few_images_to_fit_a_head_are_refused_before_any_job(with_entries, reference, budget):
    # given a model whose head is fitted for the 200 classes of the family's class file
    defaults = {**to_params(grid().family.defaults), "models": ["my_model"], "targets": ["my_set"]}
    classes = {"file": "imagenet_a", "format": "timm"}
    outputs = 1000
    catalog = with_entries(
        families={"mine": {"defaults": defaults, "reference": reference, "classes": classes}},
        datasets={
            "my_set": {"family": "mine"},
            "my_photos": {"family": "mine", "role": "reference"},
        },
        models={"my_model": {"families": ["mine"], "head": "none"}},
    )
    # then
    limits = {"max_images_per_dataset": budget}
    with pytest.raises(UserError, match=f"'my_model'.* 200 images.* {outputs} classes"):
        grid(catalog, family="mine", budget=limits)


def test_a_family_without_datasets_is_explained(with_entries):
    with pytest.raises(UserError, match="config, family: .*mine"):
        grid(with_entries(families={"mine": {}}), family="mine", targets="all")


def test_the_largest_seeds_are_taken_by_what_uses_them():
    # given
    largest = (1 << 31) - 1
    largest_of_stir = (1 << 64) - 1
    choices = {"seeds": [largest], "stir": {"seed": largest_of_stir}}
    # when
    config = config_of(choices, "config.yaml")
    # then
    column_of_rows = pa.array(config["seeds"], pa.int32())
    generator = torch.Generator().manual_seed(config["stir"]["seed"])
    assert column_of_rows.to_pylist() == [largest]
    assert generator.initial_seed() == largest_of_stir


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"seeds": [1 << 31]}, "config.yaml: 'seeds.0' is 2147483648.* to 2147483647"),
        ({"stir": {"seed": 1 << 64}}, "config.yaml: 'stir.seed' is 18446744073709551616"),
        (
            {"train_subset": "all"},
            "config.yaml: 'train_subset' is 'all'.*; expected: 'default' .*or a list of sizes",
        ),
        ({"train_subset": [1.5]}, "config.yaml: 'train_subset.0' is 1.5"),
        ({"train_subset": [0.5, 0.5 + 1e-14]}, "config, train_subset"),
        ({"protocol": "held_out"}, "config, protocol: .*emoji"),
        ({"family": "emojis"}, "config: .*'emojis'.*'emoji'"),
        ({"models": ["vit"]}, "config, models.*'vit'.*efficientnet_lite0"),
        ({"models": ["vit_base_patch16_224.none"]}, "config, models: .*augreg_in1k"),
        ({"models": ["none.sam_in1k"]}, "config, models: .*vit_base_patch16_224"),
        ({"methods": "loar"}, "config, methods.*'loar'.*'lora'"),
        ({"targets": ["noto", "nota"]}, "config, targets.*'nota'.*'noto'"),
        ({"targets": ["openmoji"], "datasets": ["noto"]}, "config, targets.*'openmoji'"),
        ({"targets": []}, "config, targets"),
        (
            {
                "family": "fashion",
                "targets": ["fashion_train"],
                "datasets": ["fashion_edges", "fashion_cartoon"],
            },
            "config, targets: 'fashion_train'.*'fashion'",
        ),
        (
            {
                "family": "fashion",
                "models": ["fashion_cnn_50k"],
                "protocol": "held_out",
                "budget": {"max_images_per_dataset": {"fashion_background": 10}},
                "targets": ["fashion_background"],
            },
            "max_images_per_dataset: .*fashion_background.* 10 images.* 10 classes",
        ),
        ({"uncropped": ["nono"]}, "config, uncropped.*'nono'"),
        ({"reference": "noto"}, "config, reference: .*emoji"),
        ({"accept_terms": "objectnet_tunning"}, "config, accept_terms: .*'objectnet_tunning'"),
        ({"method_settings": {"lwff": {}}}, "config, method_settings: .*'lwff'.*'lwf'"),
        (
            {"method_settings": {"lora": {"ranks": 1}}},
            "config, method_settings, lora: .*'ranks'.*'rank'",
        ),
        (
            {"method_settings": {"lora": {"rank": [4, True]}}},
            "config, method_settings, lora: .*'rank'",
        ),
        (
            {"method_settings": {"lwf": {"distil": [1, "all"]}}},
            "lwf: .*'distil' is 1; give text",
        ),
        (
            {
                "methods": ["surgical_last"],
                "method_settings": {"surgical_last": {"blocks": [["block1"], ["head"]]}},
            },
            "'surgical_last-blocks.*block1",
        ),
        ({"methods": ["lwf"], "method_settings": {"lwf": {"lr": [0.1, 0.1]}}}, "'lwf-lr0.1'"),
        ({"methods": ["lora"], "method_settings": {"lora": {"lr": [1, 10**300]}}}, "'lora-lr10000"),
    ],
)
def test_bad_choices_are_refused_with_their_key(choices, message):
    with pytest.raises(UserError, match=message):
        grid(**choices)


def test_dawin_is_refused_on_datasets_that_would_take_it_days():
    """ImageNet-C has 3.75 million images; a budget, or other datasets, make it possible."""

    def with_dawin(**choices):
        return grid(family="imagenet", methods=["dawin"], **choices)

    too_many = {"max_images_per_dataset": 100_001}
    few_enough = {"max_images_per_dataset": 100_000}
    others = ["imagenet_a", "imagenet_r", "imagenet_val"]
    message = "'dawin' .*'imagenet_c' has 3,750,000; .*max_images_per_dataset"
    with pytest.raises(UserError, match=message):
        with_dawin()
    with pytest.raises(UserError, match="'dawin'"):
        with_dawin(budget=too_many)
    assert "dawin" in with_dawin(budget=few_enough).methods
    assert "dawin" in with_dawin(datasets=others, targets=["imagenet_r"]).methods


def test_all_methods_leave_out_what_would_take_days_with_a_notice():
    of_imagenet = grid(family="imagenet", methods="all")
    of_emoji = grid(methods="all")
    assert "dawin" not in of_imagenet.methods
    assert notices_on(of_imagenet, "'dawin'", "too slow")
    assert "dawin" in of_emoji.methods


def test_trainings_share_fisher_information_where_it_does_not_depend_on_the_target():
    """With a proxy it is the pretrained model's.

    Without one, and of methods that start elsewhere, it is not shared.
    """
    # given
    methods = ["ewc", "ewc_empirical", "lwf", "replay"]
    with_proxy = grid(family="imagenet", methods=methods)
    without_proxy = grid(family="emoji", methods=["ewc"])
    # then
    assert with_proxy.reference is not None
    assert with_proxy.shared_fisher("ewc") == (2000, "sampled")
    assert with_proxy.shared_fisher("ewc_empirical") == (2000, "empirical")
    assert with_proxy.shared_fisher("lwf") is None
    assert with_proxy.shared_fisher("replay") is None
    assert without_proxy.reference is None
    assert without_proxy.shared_fisher("ewc") is None


def test_a_family_that_asks_for_the_worst_group_needs_a_dataset_with_groups(with_entries):
    # given
    defaults = {**to_params(grid().family.defaults), "models": ["my_model"], "targets": ["my_set"]}
    family = {"defaults": defaults, "scores": ["macro_f1", "worst_group"]}

    def catalog_with(dataset):
        return with_entries(
            families={"mine": family},
            datasets={"my_set": {"family": "mine", **dataset}},
            models={"my_model": {"families": ["mine"]}},
        )

    # then
    message = "families/mine.yaml, scores: worst_group"
    with pytest.raises(UserError, match=message):
        grid(catalog_with({}), family="mine")
    chosen = grid(catalog_with({"groups": "hospital"}), family="mine")
    assert chosen.datasets["my_set"].groups == "hospital"

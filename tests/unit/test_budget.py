"""How many images of each dataset a run uses: rib.schema.budget and what a grid makes of it."""

import pytest
import yaml

from rib.base.errors import UserError
from rib.data.grid_views import view_of
from rib.grid.grid_as_config import as_config
from rib.schema.budget import Budget, images_within
from rib.statistics.conditions import conditions_of
from tiny.projects.grids import grid


def budgeted(limits, **choices):
    """A grid of the family imagenet with a budget."""
    budget = {"max_images_per_dataset": limits}
    return grid(**{"family": "imagenet", "budget": budget, **choices})


@pytest.mark.parametrize(
    ("limit", "available", "images"),
    [
        ("all", 70, 70),
        (50, 70, 50),
        (50, 30, 30),
        (0.07, 100, 7),
        (0.001, 70, 1),
        (0.001, 0, 0),
        (1, 70, 1),
        (1.0, 70, 70),
    ],
)
def test_a_limit_is_a_number_or_a_share_of_at_least_one_image(limit, available, images):
    assert images_within(limit, available) == images


def test_a_dataset_has_its_own_limit_or_that_of_all_others():
    budget = Budget.from_config({"default": 500, "c": 0.1, "v2": "all"})
    assert [budget.images(name, 10_000) for name in ("c", "v2", "r")] == [1000, 10_000, 500]
    without_default = Budget.from_config({"c": 0.1})
    assert without_default.images("r", 10_000) == 10_000
    assert Budget.from_config(5).images("c", 10_000) == 5


def test_a_job_knows_the_limits_of_the_datasets_that_it_reads_alone():
    """So that a limit of one dataset runs nothing again that reads others."""
    model = "vit_base_patch16_224.sam_in1k"
    of_c = budgeted({"imagenet_c": 0.1})
    others = ["imagenet_a", "imagenet_r"]
    assert view_of(of_c, model, others) == view_of(grid(family="imagenet"), model, others)
    assert view_of(of_c, model, ["imagenet_c"]).budget == 0.1
    limits = {"imagenet_c": 0.1, "imagenet_val": "all"}
    assert view_of(of_c, model, ["imagenet_c", "imagenet_val"]).budget == limits


def test_a_budget_that_says_the_same_is_the_same_grid():
    def views(chosen):
        """How each dataset is read."""
        model = next(iter(chosen.models))
        return {name: view_of(chosen, model, [name]) for name in chosen.datasets}

    assert views(budgeted({"default": 5000})) == views(budgeted(5000))
    without_limits = budgeted({"default": "all", "imagenet_c": 1.0, "imagenet_c_extra": 5})
    assert views(without_limits) == views(grid(family="imagenet"))
    assert conditions_of(without_limits) == conditions_of(grid(family="imagenet"))
    assert views(budgeted({"imagenet_c": 0.1})) != views(budgeted({"imagenet_c": 0.2}))


def test_the_configuration_that_a_page_shows_has_the_budget():
    shown = budgeted({"default": 5000, "imagenet_c": 0.1})
    pasted = grid(**yaml.safe_load(yaml.safe_dump(as_config(shown))))
    assert pasted.budget == shown.budget


def test_conditions_say_the_budget_and_what_intervals_are_of():
    limits = {"default": 500, "imagenet_v2": "all", "imagenet_c": 0.025}
    conditions = "; ".join(conditions_of(budgeted(limits)))
    for phrase in ("500 images", "all images of IN-V2", "2.5 % of the images of IN-C", "intervals"):
        assert phrase in conditions


def test_the_familys_sizes_are_left_out_where_a_budget_leaves_fewer_images_of_a_target():
    assert budgeted(5000).sizes == ["all", "1000"]
    assert budgeted(1000).sizes == ["all"]
    assert budgeted({"imagenet_c": 0.1}).sizes == ["all", "1000"]
    assert budgeted({"imagenet_r": 0.03}).sizes == ["all"], "3 % of 30,000 are 900 images"
    assert budgeted({"imagenet_r": 0.03}, targets=["imagenet_a"]).sizes == ["all", "1000"]
    assert budgeted({"imagenet_val": 5}).sizes == ["all", "1000"], "it is no target"


def test_a_share_makes_a_dataset_small_enough_for_a_slow_method():
    choices = {"methods": ["dawin"], "targets": ["imagenet_a"]}
    assert "dawin" in budgeted({"imagenet_c": 0.02}, **choices).methods
    with pytest.raises(UserError, match="'imagenet_c' has 112,500"):
        budgeted({"imagenet_c": 0.03}, **choices)


def test_numbers_of_the_command_line_are_limits():
    assert budgeted({"imagenet_c": "0.1", "default": "500"}).budget == Budget(
        500, {"imagenet_c": 0.1}
    )


def test_a_limit_of_a_dataset_that_is_not_read_is_said_to_have_no_effect():
    (notice,) = [
        text for text in budgeted({"imagenet_c_extra": 5}).notices if "imagenet_c_extra" in text
    ]
    assert "no effect" in notice
    assert not [text for text in budgeted({"imagenet_c": 5}).notices if "no effect" in text]


KEY = "budget.max_images_per_dataset"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (0, f"config.yaml: '{KEY}' is 0"),
        (0.5, f"config.yaml: '{KEY}' is 0.5"),
        ({}, f"config.yaml: '{KEY}' is {{}}"),
        ({"imagenet_c": 1.5}, f"config.yaml: '{KEY}.imagenet_c' is 1.5.*at most 1"),
        ({"imagenet_c": True}, f"config.yaml: '{KEY}.imagenet_c' is True"),
        ({"imagenet_d": 5}, f"config, {KEY}: .*'imagenet_d'.*'imagenet_"),
        ({5: 0.5}, f"config.yaml: '{KEY}' is {{5: 0.5}}"),
    ],
    ids=str,
)
def test_a_budget_that_makes_no_sense_is_refused_with_its_key(limits, message):
    with pytest.raises(UserError, match=message):
        budgeted(limits)

"""Recipes of a grid: which methods are trained with which, and how bad ones are refused.

Their names, settings and lengths are tested, too.
"""

import re

import pytest

from rib.base.errors import UserError
from rib.base.params import to_params
from rib.catalog.catalog import Catalog
from rib.grid.grid_as_config import resolved
from rib.training.training_settings import TrainingSettings, learning_rates
from tiny.projects.grids import grid
from tiny.projects.project import ROOT

CLIP = "ViT-B-16.openai"  # it has a text tower


def test_the_familys_first_recipe_is_no_part_of_names_and_others_are():
    chosen = grid(
        methods=["wise_ft", "ft_released"],
        recipes=["paper", "adamw"],
        method_settings={"wise_ft": {"alpha": 0.5}},
    )
    assert list(chosen.methods) == ["ft-paper", "ft", "wise_ft-paper", "wise_ft", "ft_released"]
    assert {name: method.recipe for name, method in chosen.methods.items()} == {
        **{"ft-paper": "paper", "wise_ft-paper": "paper", "ft_released": "paper"},
        **{"ft": "adamw", "wise_ft": "adamw"},
    }
    assert chosen.methods["wise_ft-paper"].parents == ("ft-paper",) and chosen.methods[
        "wise_ft"
    ].parents == ("ft",)
    labels = {name: method.label for name, method in chosen.methods.items()}
    assert labels["ft-paper"] == f"{labels['ft']}, SGD"
    assert labels["wise_ft-paper"] == f"{labels['wise_ft']}, SGD" and labels[
        "ft_released"
    ].endswith("(released)")
    assert list(grid(methods=["ft"], recipes="paper").methods) == ["ft-paper"], (
        "also where it is the only one"
    )
    assert set(grid(methods=["ft"], recipes="all").methods) == {"ft", "ft-paper"}
    assert list(grid(family="imagenet", methods=["lora"]).methods) == ["lora"]
    with pytest.raises(
        UserError, match="'lora' has no learning rate for recipe 'adamw' in family imagenet"
    ):
        grid(family="imagenet", methods=["lora"], recipes=["paper", "adamw"])


def test_all_recipes_are_those_with_a_rate_for_the_method():
    def of(method):
        chosen = grid(family="imagenet", models=[CLIP], methods=[method], recipes="all")
        return list(chosen.methods)

    assert of("lora") == ["lora"]
    assert of("ft") == ["ft", "ft-adamw", "ft-wise_ft_in1k"]
    assert of("flyp") == ["flyp", "flyp-adamw", "flyp-flyp_in1k"]
    assert of("linear_probe") == ["linear_probe", "linear_probe-wise_ft_in1k"]


def test_recipes_of_released_code_warm_up_for_their_steps_however_short_a_run_is():
    chosen = grid(
        family="imagenet",
        models=[CLIP],
        methods=["ft", "flyp"],
        method_settings={"ft": {"recipe": "wise_ft_in1k"}, "flyp": {"recipe": "flyp_in1k"}},
        training={"steps": 1000},
    )
    for name in ("ft-wise_ft_in1k", "flyp-flyp_in1k"):
        training = TrainingSettings(**chosen.training(name))
        rate = chosen.methods[name].settings["lr"]
        rates = list(learning_rates(rate, 1000, training))
        assert rates.index(max(rates)) == 499
        assert max(rates) == rate
        assert list(training.augmentation) == ["crop"]


def test_a_recipe_that_a_family_gives_a_method_is_that_methods_alone():
    methods = grid(family="imagenet", methods=["wise_ft", "lwf"]).methods
    assert list(methods) == ["ft", "ft-adamw", "wise_ft", "wise_ft-adamw", "lwf"]
    assert [methods[name].settings["lr"] for name in ("ft", "ft-adamw")] == [0.001, 0.00003]
    one = grid(
        family="imagenet", methods=["wise_ft"], method_settings={"ft": {"recipe": "paper"}}
    ).methods
    assert list(one) == ["ft", "wise_ft"]


def test_each_method_has_the_rate_of_its_recipe_and_is_trained_by_it():
    chosen = grid(methods=["ft", "lora"], recipes=["adamw", "paper"])
    rates = {name: method.settings["lr"] for name, method in chosen.methods.items()}
    assert rates == {"ft": 0.0001, "lora": 0.002, "ft-paper": 0.0002, "lora-paper": 0.01}
    assert not any(
        key in method.settings for method in chosen.methods.values() for key in ("recipe", "epochs")
    )
    adamw, sgd = (TrainingSettings(**chosen.training(name)) for name in ("ft", "ft-paper"))
    assert (adamw.optimizer, adamw.clip_norm) == ("adamw", 1.0)
    assert (sgd.optimizer, sgd.clip_norm) == ("sgd", None)


def test_a_recipe_is_swept_like_any_other_setting():
    settings = {"ft": {"recipe": ["adamw", "paper"], "lr": [0.1, 0.2]}, "wise_ft": {"alpha": 0.5}}
    methods = grid(methods=["wise_ft", "lwf"], method_settings=settings).methods
    assert set(methods) == {
        *("ft-lr0.1", "ft-lr0.2", "ft-paper-lr0.1", "ft-paper-lr0.2", "lwf"),
        *("wise_ft-lr0.1", "wise_ft-lr0.2", "wise_ft-paper-lr0.1", "wise_ft-paper-lr0.2"),
    }
    assert methods["wise_ft-paper-lr0.2"].parents == ("ft-paper-lr0.2",)
    assert methods["ft-paper-lr0.2"].label == "full fine-tuning, SGD, lr 0.2"


def test_a_merge_combines_parents_of_the_same_recipe_alone():
    methods = grid(methods=["soup", "lp_ft"], recipes=["adamw", "paper"]).methods
    soups = {name: method.parents for name, method in methods.items() if name.startswith("soup")}
    assert soups == {
        "soup": ("ft", "ewc", "lwf"),
        "soup-paper": ("ft-paper", "ewc-paper", "lwf-paper"),
    }
    assert methods["lp_ft-paper"].parents == ("linear_probe-paper",) and "lp_ft" in methods
    one = grid(
        methods=["soup"], recipes=["adamw", "paper"], method_settings={"lwf": {"recipe": "paper"}}
    ).methods
    assert [name for name in one if name.startswith("soup")] == ["soup-paper"]


def test_what_is_said_last_of_the_length_of_training_holds(with_entries):
    def length(name, catalog=None, **choices):
        return grid(catalog, methods=[name.partition("-")[0]], **choices).methods[name].length

    assert length("ft") == {"epochs": 20} and length("linear_probe") == {"epochs": 60}
    assert length("linear_probe-paper", recipes="paper") == {"epochs": 20}
    for name in ("ft", "linear_probe"):
        assert length(name, training={"epochs": 3}) == {"epochs": 3}
        assert length(name, training={"steps": 7}) == {"steps": 7}
        own = {name: {"epochs": 4}}
        assert length(name, training={"steps": 7}, method_settings=own) == {"epochs": 4}
    steps = with_entries(methods={"mine": {"recipes": {"adamw": {"lr": 1, "steps": 9}}}})
    assert length("mine", steps) == {"steps": 9} and length(
        "mine", steps, training={"epochs": 2}
    ) == {"epochs": 2}
    for_all = with_entries(methods={"mine": {"settings": {"lr": 1, "steps": 9}, "recipes": None}})
    assert length("mine", for_all) == {"steps": 9} and length(
        "mine-paper", for_all, recipes="paper"
    ) == {"steps": 9}
    chosen = grid(methods=["ft"], method_settings={"ft": {"steps": [5, 6]}})
    assert [chosen.training(name)["steps"] for name in ("ft-steps5", "ft-steps6")] == [5, 6]
    assert chosen.training("ft-steps5")["epochs"] is None


def test_the_resolved_config_says_how_each_method_is_trained():
    chosen = grid(methods=["wise_ft", "ft_released"], method_settings={"wise_ft": {"alpha": 0.5}})
    found = resolved(chosen)
    assert found["recipes"] == ["adamw", "paper"]
    assert {"recipe": "adamw", "epochs": 20, "lr": 0.0001}.items() <= found["method_settings"][
        "ft"
    ].items()
    assert {"recipe": "paper", "epochs": 20}.items() <= found["method_settings"][
        "ft_released"
    ].items()
    assert found["method_settings"]["wise_ft"] == {"alpha": 0.5}
    assert found["training"] == {
        "batch_size": 32,
        "micro_batch_size": "all",
        "subset_length": "steps",
    }


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"optimizer": "adagrad"}, "recipes.yaml: 'mine.optimizer' is 'adagrad'"),
        ({"optimizer": None}, "recipes.yaml: .*'optimizer'.*'mine'"),
        ({"augmentation": ["flip", "blur"]}, "recipes.yaml: 'mine.augmentation.1' is 'blur'"),
        ({"augmentation": ["flip", "flip"]}, "recipes.yaml: 'mine.augmentation'"),
        ({"momentum": 1}, "recipes.yaml: 'mine.momentum' is 1"),
        ({"lr": 0.1}, "recipes.yaml: .*'lr' in 'mine'"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_key(with_entries, changes, place):
    with pytest.raises(UserError, match=place):
        _ = with_entries(recipes={"mine": changes}).recipes


@pytest.mark.parametrize(
    ("choices", "place"),
    [
        ({"recipes": ["adam"]}, "config, recipes .*'adam'.*'adamw'"),
        ({"recipes": []}, "config, recipes: the list is empty"),
        (
            {"methods": ["mine"]},
            "config, recipes: 'mine' has no learning rate for recipe 'adamw' in family emoji",
        ),
        ({"method_settings": {"ft": {"recipe": "adam"}}}, "method ft: .*'adam'.*'adamw'"),
        (
            {"method_settings": {"ft": {"recipe": []}}},
            "config, method_settings, ft: .*'recipe' is an empty list",
        ),
        (
            {"method_settings": {"wise_ft": {"recipe": "paper"}}},
            "config, method_settings, wise_ft: .*'recipe'",
        ),
        (
            {"training": {"epochs": 1, "steps": 1}},
            "config, training: epochs and steps are both given",
        ),
        (
            {"method_settings": {"ft": {"epochs": 1, "steps": 1}}},
            "config, method_settings, ft: epochs and steps",
        ),
        (
            {"method_settings": {"ft": {"epochs": 0}}},
            "config, method_settings, ft: .*'epochs' is 0",
        ),
        (
            {"method_settings": {"lwf": {"recipe": "paper"}}, "methods": ["soup"]},
            "config, recipes: .*'soup'",
        ),
    ],
)
def test_a_bad_choice_is_refused_with_its_key(with_entries, choices, place):
    with pytest.raises(UserError, match=place):
        grid(with_entries(methods={"mine": {}}), **{"methods": ["ft", "wise_ft"], **choices})


@pytest.mark.parametrize(
    ("recipes", "place"),
    [
        ({"adam": {}}, "families/mine.yaml, recipes: .*'adam'.*'adamw'"),
        ({"adamw": {"fft": {}}}, "families/mine.yaml, recipes, adamw: .*'fft'.*'ft'"),
        ({"adamw": {"ft": {"lrr": 1}}}, "families/mine.yaml, recipes, adamw, ft: .*'lrr'.*'lr'"),
        (
            {"adamw": {"ft": {"recipe": "paper"}}},
            "families/mine.yaml, recipes, adamw, ft: .*'recipe'",
        ),
        (
            {"adamw": {"ft": {"lr": 1, "epochs": 1, "steps": 1}}},
            "families/mine.yaml, recipes, adamw, ft: epochs and",
        ),
    ],
)
def test_a_familys_recipes_are_checked(with_entries, recipes, place):
    families = {"mine": {"recipes": recipes, "classes": {"file": "emoji.csv", "format": "wnids"}}}
    catalog = with_entries(families=families, datasets={"my_set": {"family": "mine"}})
    with pytest.raises(UserError, match=place):
        grid(catalog, family="mine", methods=["ft"], targets=["my_set"], recipes=["adamw"])


def test_a_familys_default_recipe_must_be_known(with_entries):
    defaults = {**to_params(grid().family.defaults), "recipes": ["adam"], "targets": ["my_set"]}
    catalog = with_entries(
        families={"mine": {"defaults": defaults}}, datasets={"my_set": {"family": "mine"}}
    )
    with pytest.raises(UserError, match="families/mine.yaml, recipes .*'adam'"):
        grid(catalog, family="mine", methods=["ft"])


def test_the_recipe_that_the_documentation_shows_is_valid(tmp_path):
    page = (ROOT / "docs/methods.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.S | re.M)
    (tmp_path / "recipes.yaml").write_text(shown)
    chosen = grid(
        Catalog([ROOT / "workflow/catalog", tmp_path]),
        methods=["ft"],
        recipes="strong",
        method_settings={"ft": {"lr": 0.1}},
    )
    assert chosen.training("ft-strong")["augmentation"] == ["flip", "crop", "randaugment"]


def test_recipes_of_config_override_what_the_family_gives_a_method():
    assert set(grid(family="imagenet", methods=["ft"]).methods) == {"ft", "ft-adamw"}
    assert set(grid(family="imagenet", methods=["ft"], recipes=["paper"]).methods) == {"ft"}
    assert set(grid(family="imagenet", methods=["ft"], recipes=["adamw"]).methods) == {"ft-adamw"}

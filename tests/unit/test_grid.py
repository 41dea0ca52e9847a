"""What a config's choices come to, and how bad ones are refused."""

import itertools
import math

import pyarrow as pa
import pytest
import torch
import yaml

from rib.base.errors import UserError
from rib.base.settings import from_params
from rib.config.entries import MERGES
from rib.config.grid import resolve_grid
from rib.config.run import Run
from rib.config.schema import validated
from rib.training.settings import TrainingSettings, learning_rates
from tiny.grids import grid, project_catalog


def test_the_default_grid_has_the_promised_size():
    chosen = grid()
    assert len(chosen.models) >= 2 and len(chosen.targets) >= 4 and chosen.sizes == ["all"]
    assert list(chosen.methods) == [
        "ft",
        "linear_probe",
        *(f"wise_ft-alpha{alpha}" for alpha in (0.25, 0.5, 0.75)),
    ]
    assert len(chosen.runs()) == len(chosen.models) * (
        1 + len(chosen.methods) * len(chosen.targets)
    )
    assert Run("efficientnet_lite0", "none", "pretrained", "all", 0) in chosen.runs()


def test_imagenets_default_grid_can_tell_the_optimiser_from_the_size_of_the_set():
    chosen = grid(family="imagenet")
    assert chosen.sizes == ["all", "1000"] and grid(
        family="imagenet", train_subset=["all"]
    ).sizes == ["all"]
    recipes = {
        name: method.schedule
        for name, method in chosen.methods.items()
        if method.name.startswith(("ft", "wise"))
    }
    assert recipes == {
        "ft": "paper",
        "ft-adamw": "adamw",
        "wise_ft": "paper",
        "wise_ft-adamw": "adamw",
    }
    assert chosen.methods["wise_ft-adamw"].parents == ("ft-adamw",)
    runs = [run for run in chosen.runs() if run.method != "pretrained"]
    assert len(runs) == len(chosen.models) * len(chosen.methods) * len(chosen.targets) * 2
    assert {run.size for run in runs if run.method == "ft-adamw"} == {"all", "1000"}


@pytest.mark.parametrize(
    "choices, reference",
    [
        ({}, "ft"),
        ({"methods": ["linear_probe"]}, "pretrained"),
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
        ({"compare_to": "pretrained"}, "pretrained"),
    ],
    ids=str,
)
def test_differences_are_from_ft_unless_the_run_lacks_it_or_config_says_otherwise(
    choices, reference
):
    chosen = grid(**choices)
    assert chosen.compare_to == chosen.resolved()["compare_to"] == reference


@pytest.mark.parametrize("name", ["lora", "wise_ft_curve", "Full fine-tuning"])
def test_a_reference_that_the_run_lacks_or_that_has_no_mri_is_refused(name):
    """lora is not among the methods of the run, and a curve is no single method."""
    with pytest.raises(UserError, match="^config, compare_to: unknown method .*ft.*pretrained"):
        grid(methods=["ft", "linear_probe", "wise_ft_curve"], compare_to=name)


def test_all_takes_the_whole_catalogue():
    chosen = grid(models="all", methods="all", targets="all", image_size="native")
    assert len(chosen.targets) == 8 and len(chosen.models) == 3
    assert {chosen.geometry(model).size for model in chosen.models} == {224, 240, 260}


def test_the_full_grid_trains_and_merges_each_model_on_each_target():
    """Of the CNNs of this family, without methods for ViTs.

    With a reference, a sweep or held-out images.
    """
    chosen = grid(models="all", methods="all", targets="all", image_size=224, seeds=[0, 1])
    merged = {name for name, method in chosen.methods.items() if method.form in MERGES}
    over_seeds = {name for name in merged if chosen.methods[name].over == "seeds"}
    trained = chosen.methods.keys() - merged
    assert (len(trained), len(merged - over_seeds), len(over_seeds)) == (22, 12, 2)
    runs = chosen.runs()
    pretrained, fine_tuned = 3, 3 * 8 * (2 * len(trained | merged - over_seeds) + len(over_seeds))
    assert len(runs) == len(set(runs)) == pretrained + fine_tuned


def test_recipes_multiply_the_methods():
    chosen = grid(recipes=["adamw", "paper"])
    assert len(chosen.methods) == 2 * len(grid().methods)
    assert {
        "ft",
        "ft-paper",
        "wise_ft-alpha0.25",
        "wise_ft-alpha0.25-paper",
    } <= chosen.methods.keys()


@pytest.mark.parametrize(
    "choices",
    [
        {"targets": ["noto"]},
        {"datasets": ["noto", "twemoji", "openmoji"]},
        {"methods": ["ft"]},
        {"seeds": [1]},
        {"leak_free": True},
        {"compare_to": "linear_probe"},
        {"statistics": {"replicates": 100}},
        {"method_settings": {"ft": {"lr": 0.1}}},
    ],
    ids=str,
)
def test_the_digest_of_a_grid_follows_each_choice_that_moves_a_table(choices):
    assert grid(**choices).digest != grid().digest


@pytest.mark.parametrize(
    "choices",
    [
        {"analyses": ["distances"]},
        {"distances": {"compressed_megabytes": 1}},
        {"monitor": ["noto"]},
        {"pull": ["reports"]},
        {"archives": ["shelf"]},
        {"compute": {"warm_start": False, "jobs_per_gpu": 2, "decode_workers": 8}},
        {"targets": list(grid().targets)},  # what `default` means
    ],
    ids=str,
)
def test_the_digest_of_a_grid_does_not_follow_what_is_shown_of_it_or_how_it_is_run(choices):
    assert grid(**choices).digest == grid().digest


def test_whole_photos_are_seen_of_the_datasets_that_config_names():
    default = grid(family="imagenet")
    chosen = grid(family="imagenet", uncropped=["imagenet_c"])
    model = next(iter(chosen.models))
    assert default.uncropped == [] and chosen.uncropped == ["imagenet_c"]
    assert chosen.digest != default.digest
    assert "whole photos of IN-C" in chosen.conditions()
    assert chosen.as_config()["uncropped"] == ["imagenet_c"]
    readers_of = {name: chosen.view_of(model, [name]) for name in ("imagenet_c", "imagenet_r")}
    assert readers_of["imagenet_c"]["uncropped"] == ["imagenet_c"]
    assert readers_of["imagenet_r"] == default.view_of(model, ["imagenet_r"]), "not run again"
    geometry = chosen.geometry(model)
    assert geometry.crop_pct < 1 and chosen.preparation("imagenet_c", geometry)["geometry"] is None


def test_an_entry_may_ask_for_whole_photos_in_place_of_the_models_crop(with_entries):
    defaults = {**grid().family.defaults, "models": ["my_model"], "targets": ["whole"]}
    catalog = with_entries(
        families={"mine": {"defaults": defaults, "crop_pct": 0.5}},
        datasets={"whole": {"family": "mine", "crop": "none"}, "cropped": {"family": "mine"}},
        models={"my_model": {"families": ["mine"]}},
    )
    chosen = grid(catalog, family="mine")
    geometry = chosen.geometry("my_model")
    crops = [
        chosen.preparation(name, geometry)["geometry"].crop_pct for name in ("whole", "cropped")
    ]
    assert crops == [1.0, 0.5] and geometry.crop_pct == 0.5
    cropped = grid(catalog, family="mine", uncropped=[])
    assert cropped.preparation("whole", geometry)["geometry"].crop_pct == 0.5


def test_errors_are_as_published_only_of_whole_photos_at_their_size():
    for choices, expected in (
        ({"uncropped": ["imagenet_c"], "image_size": 224}, True),
        ({"image_size": 224}, False),
        ({"uncropped": ["imagenet_r"], "image_size": 224}, False),
        ({"uncropped": ["imagenet_c"], "image_size": 240}, False),
    ):
        chosen = grid(family="imagenet", **choices)
        model = next(iter(chosen.models))
        assert chosen.errors_are_as_published(model, "imagenet_c") is expected


def test_unknown_datasets_cannot_be_seen_whole():
    with pytest.raises(UserError, match="config, uncropped .family emoji.: unknown dataset 'nono'"):
        grid(uncropped=["nono"])


def test_a_part_of_an_evaluation_group_is_evaluated_beside_the_whole_group():
    (whole,) = grid().evaluation_groups()
    part = grid(datasets=["noto", "openmoji"])
    other_part = grid(datasets=["noto", "twemoji"])
    (name,), (other_name,) = part.evaluation_groups(), other_part.evaluation_groups()
    assert whole == "emoji" and len({whole, name, other_name}) == 3
    assert part.groups_of("noto") == [name]
    named = grid(datasets=list(grid().datasets))
    assert list(named.evaluation_groups()) == ["emoji"], "it is the same group"


def test_each_part_of_a_dataset_is_an_evaluation_group():
    chosen = grid(family="imagenet", datasets=["imagenet_r", "imagenet_c"])
    of_r, *parts = chosen.evaluation_groups()
    assert chosen.groups_of("imagenet_r") == [of_r] and chosen.part_of_group(of_r) is None
    names = ("noise", "blur", "weather", "digital")
    assert chosen.groups_of("imagenet_c") == parts == [f"imagenet_c-{name}" for name in names]
    assert [chosen.evaluation_groups()[part] for part in parts] == [["imagenet_c"]] * 4
    levels = {part: chosen.part_of_group(part)["levels"] for part in parts}
    assert levels["imagenet_c-noise"] == ("gaussian_noise", "shot_noise", "impulse_noise")
    for part in parts:
        others = [level for other in parts if other != part for level in levels[other]]
        assert chosen.levels_of_other_parts(part) == others
    assert chosen.share_of_group(of_r) == 1
    assert [chosen.share_of_group(part) for part in parts] == [3 / 15, 4 / 15, 4 / 15, 4 / 15]


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
    pasted = grid(**yaml.safe_load(yaml.safe_dump(shown.as_config())))
    assert pasted.runs() == shown.runs() and pasted.methods == shown.methods
    assert pasted.resolved() == shown.resolved() and pasted.digest == shown.digest


def test_sizes_and_seeds_multiply_the_fine_tuned_runs_only():
    choices = {"models": ["efficientnet_lite0"], "methods": ["ft"], "targets": ["noto"]}
    chosen = grid(**choices, train_subset=[0.5, "all", "50"], seeds=[3, 4])
    assert [(run.method, run.size, run.seed) for run in chosen.runs()] == [
        ("pretrained", "all", 0),
        *(("ft", size, seed) for size, seed in itertools.product(["0.5", "all", "50"], [3, 4])),
    ]
    assert chosen.shown_size == "all"


@pytest.mark.parametrize("train", [0.8, 0.9, 0.55])
def test_splits_that_leave_nothing_to_test_are_refused(train):
    for select in (round(1 - train, 2), 0.5):
        with pytest.raises(UserError, match="config, split"):
            grid(family="imagenet", protocol="held_out", split={"train": train, "select": select})
    kept = grid(
        family="imagenet",
        protocol="held_out",
        split={"train": train, "select": round(0.9999 - train, 4)},
    )
    assert sum(kept.split_fractions.values()) < 1


def test_leak_free_leaves_shared_sources_out_unless_they_were_held_out():
    groups = grid(family="imagenet", leak_free=True).leak_free_groups()
    assert (
        groups["imagenet_cartoon"] == groups["imagenet_c"] == groups["imagenet_val"]
        and "imagenet_v2" not in groups
    )
    assert grid(family="imagenet").leak_free_groups() is None
    assert grid(family="imagenet", leak_free=True, protocol="held_out").leak_free_groups() is None


def test_a_dataset_is_split_after_those_before_it_that_share_its_sources():
    chosen = grid(family="imagenet", protocol="held_out")
    assert chosen.split_before("imagenet_val") == chosen.split_before("imagenet_r") == []
    assert chosen.split_before("imagenet_drawing") == ["imagenet_val", "imagenet_cartoon"]
    more = grid(family="imagenet", protocol="held_out", datasets="all")
    assert (
        more.split_before("imagenet_c_extra")[-1] == "imagenet_c"
        and more.split_before("imagenet_val") == []
    )


def test_conditions_name_the_budget_and_what_is_left_out():
    phrases = "; ".join(
        grid(family="imagenet", budget={"max_images_per_dataset": 73}, leak_free=True).conditions()
    )
    assert "73 images" in phrases and "leak-free" in phrases and "paper" in phrases
    plain = "; ".join(grid(family="imagenet").conditions())
    assert "73" not in plain and "leak-free" not in plain


def test_leak_free_without_effect_is_said_and_is_no_condition():
    """Under held_out, no scored image shares its source with one that was trained on."""
    held_out = grid(family="imagenet", protocol="held_out", leak_free=True)
    assert "leak-free" not in "; ".join(held_out.conditions())
    (notice,) = set(held_out.notices) - set(grid(family="imagenet", protocol="held_out").notices)
    assert "leak_free" in notice and "held_out" in notice
    assert not [
        said for said in grid(family="imagenet", leak_free=True).notices if "leak_free" in said
    ]


def test_fewer_datasets_leave_fewer_default_targets_and_conditions_say_so():
    chosen = grid(datasets=["noto", "twemoji", "fluent_3d"])
    assert chosen.targets == ["noto"] and list(chosen.datasets) == ["noto", "twemoji", "fluent_3d"]
    assert any(phrase.startswith("without OpenMoji, Fluent flat") for phrase in chosen.conditions())


def test_a_list_of_values_sweeps_and_names_its_variants():
    methods = grid(
        methods=["lora"], method_settings={"lora": {"rank": [4, 8], "lr": ["1e-5", 0.5]}}
    ).methods
    assert set(methods) == {
        f"lora-lr{lr}-rank{rank}" for lr in ("0.00001", "0.5") for rank in (4, 8)
    }
    assert methods["lora-lr0.00001-rank4"].settings["lr"] == 1e-5
    assert methods["lora-lr0.5-rank8"].settings["rank"] == 8
    assert methods["lora-lr0.5-rank8"].label == "LoRA, lr 0.5, rank 8"


def test_a_method_that_depends_on_a_swept_one_is_swept_with_it():
    settings = {"ft": {"lr": [0.1, 0.2]}, "linear_probe": {"lr": [1, 2]}, "wise_ft": {"alpha": 0.5}}
    parents = {
        n: m.parents
        for n, m in grid(methods=["wise_ft", "lp_ft"], method_settings=settings).methods.items()
    }
    assert parents["wise_ft-lr0.2"] == ("ft-lr0.2",) and parents["lp_ft-lr1"] == (
        "linear_probe-lr1",
    )
    assert len(parents) == 2 + 2 + 2 + 2 and "ft" not in parents


def test_parents_swept_over_the_same_setting_are_told_apart():
    settings = {"ft": {"lr": [0.1, 0.2]}, "lwf": {"lr": [0.3, 0.4]}}
    methods = grid(methods=["soup"], method_settings=settings).methods
    soups = {name: method.parents for name, method in methods.items() if "soup" in name}
    assert len(soups) == 4
    assert soups["soup-ft_lr0.1-lwf_lr0.4"] == ("ft-lr0.1", "ewc", "lwf-lr0.4")
    both = grid(
        methods=["lp_ft"], method_settings={"lp_ft": {"lr": [1, 2]}, "linear_probe": {"lr": [3, 4]}}
    ).methods
    assert both["lp_ft-lr1-linear_probe_lr4"].settings["lr"] == 1
    assert both["lp_ft-lr1-linear_probe_lr4"].parents == ("linear_probe-lr4",) and len(both) == 6


def test_a_merge_of_a_method_that_starts_from_another_brings_both_and_their_sweeps(with_entries):
    catalog = with_entries(
        methods={"mine": {"algorithm": "soup", "recipes": None, "parents": ["lp_ft"]}}
    )
    assert list(grid(catalog, methods=["mine"]).methods) == ["linear_probe", "lp_ft", "mine"]
    methods = grid(
        catalog, methods=["mine"], method_settings={"linear_probe": {"lr": [1, 2]}}
    ).methods
    assert methods["mine-lr2"].parents == ("lp_ft-lr2",) and methods["lp_ft-lr2"].parents == (
        "linear_probe-lr2",
    )


def test_a_family_has_a_grid_and_settings_of_its_own_which_config_overrides(with_entries):
    entries = project_catalog().methods
    assert grid(methods=["ft"]).methods["ft"].settings == {**entries["ft"].settings, "lr": 0.0001}
    assert grid(methods=["ft"], method_settings={"ft": {"lr": 3}}).methods["ft"].settings["lr"] == 3
    own = {"method_settings": {"lwf": {"temperature": 9}}, "recipes": {}}
    chosen = grid(
        own_family(with_entries, **own), family="mine", methods=["ft", "lwf"], recipes=["paper"]
    )
    assert list(chosen.models) == ["my_model"] and chosen.targets == ["my_set"]
    rates = {name: entries[name].recipes["paper"] for name in ("ft", "lwf")}
    lwf, ft = chosen.methods["lwf-paper"], chosen.methods["ft-paper"]
    assert lwf.settings == {**entries["lwf"].settings, **rates["lwf"], "temperature": 9}
    assert ft.settings == {**entries["ft"].settings, **rates["ft"]}


def test_a_parent_is_added_with_a_notice():
    chosen = grid(methods=["wise_ft"], method_settings={"wise_ft": {"alpha": 0.5}})
    assert list(chosen.methods) == ["ft", "wise_ft"]
    (notice,) = chosen.notices
    assert "'ft'" in notice and "'wise_ft'" in notice


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
    assert any(f"'{method}'" in notice and why in notice for notice in chosen.notices)
    with pytest.raises(UserError, match=f"config, methods: '{method}'.*{why}"):
        grid(methods=["ft", method])


def test_models_of_both_types_each_have_the_methods_that_are_for_them(with_entries):
    """A soup of lora_released, which is for ViTs, is left out on a CNN.

    There is nothing to average.
    """
    soup = {"algorithm": "soup", "recipes": None, "parents": ["lora_released", "ft"]}
    catalog = with_entries(models={"my_vit": {"type": "vit"}}, methods={"mine": soup})
    assert set(catalog.methods["mine"].types) == {"cnn", "vit"}
    choices = {"models": ["efficientnet_lite0", "my_vit"], "methods": ["mine", "lwf"]}
    with pytest.raises(UserError, match="config, recipes: .*'mine'"):
        grid(catalog, **choices)  # ft is trained with adamw here, lora_released always with paper
    chosen = grid(catalog, **choices, recipes="paper")
    assert set(chosen.methods_of("my_vit")) == {
        "lora_released",
        "ft-paper",
        "mine-paper",
        "lwf-paper",
    }
    assert chosen.methods_of("efficientnet_lite0") == ["ft-paper", "lwf-paper"]
    runs = {(run.model, run.method) for run in chosen.runs()}
    for method in ("mine-paper", "lora_released"):
        assert ("my_vit", method) in runs and ("efficientnet_lite0", method) not in runs
        assert any(
            f"'{method}'" in notice and "'efficientnet_lite0'" in notice
            for notice in chosen.notices
        )


def test_methods_that_train_with_texts_are_for_models_with_a_text_tower(with_entries):
    """And so are merges of them.

    A fitted head in place of the zero-shot one leaves no use for the tower.
    """
    mine = {
        "algorithm": "wise_ft",
        "recipes": None,
        "parents": ["flyp"],
        "settings": {"alpha": 0.5},
        "can_fit": None,
    }
    catalog = with_entries(
        models={"my_clip": {"library": "open_clip", "head": "zero_shot"}}, methods={"mine": mine}
    )
    choices = {"methods": ["ft", "mine"], "recipes": "paper"}
    chosen = grid(catalog, models=["efficientnet_lite0", "my_clip"], **choices)
    assert chosen.methods_of("my_clip") == ["ft-paper", "flyp-paper", "mine-paper"]
    assert chosen.methods_of("efficientnet_lite0") == ["ft-paper"]
    why = (
        "is not run on 'efficientnet_lite0': it trains with texts, but the model has no text tower"
    )
    assert {f"method '{name}' {why}" for name in ("flyp-paper", "mine-paper")} <= set(
        chosen.notices
    )
    with pytest.raises(
        UserError,
        match="'mine' cannot be run: of 'flyp': it trains with texts, but no chosen model",
    ):
        grid(catalog, models=["efficientnet_lite0"], **choices)


def test_a_method_whose_parent_cannot_be_run_is_left_out_too(with_entries):
    soup = {"algorithm": "soup", "recipes": None, "parents": ["ft", "replay"]}
    chosen = grid(with_entries(methods={"mine": soup}), methods="all")
    assert "mine" not in chosen.methods and "replay" not in chosen.methods
    assert any(
        "'mine'" in notice and "'replay'" in notice and "reference" in notice
        for notice in chosen.notices
    )


def test_a_dataset_that_is_never_a_target_is_evaluated_and_counts_in_ri(with_entries):
    catalog = with_entries(datasets={"mine": {"never_target": "a network fails on it"}})
    chosen = grid(catalog, targets="all")
    assert "mine" in chosen.ood and "mine" not in chosen.targets
    assert any("'mine'" in notice and "a network fails" in notice for notice in chosen.notices)
    with pytest.raises(UserError, match="config, targets: 'mine'.*a network fails on it"):
        grid(catalog, targets=["mine"])


def test_a_dataset_whose_licence_forbids_tuning_is_a_target_only_once_its_terms_are_accepted(
    with_entries,
):
    catalog = with_entries(
        datasets={"mine": {"tuning": {"accept": "mine_tuning", "terms": "It forbids tuning."}}}
    )
    chosen = grid(catalog, targets="all")
    assert "mine" not in chosen.targets and "mine" in chosen.ood
    assert any("'mine'" in notice and "It forbids tuning." in notice for notice in chosen.notices)
    with pytest.raises(UserError, match="config, targets: 'mine'.*It forbids tuning.*mine_tuning"):
        grid(catalog, targets=["mine"])
    accepted = grid(catalog, targets="all", accept_terms=["mine_tuning"])
    assert "mine" in accepted.targets
    assert any("'mine'" in notice and "mine_tuning" in notice for notice in accepted.notices)


def test_an_optional_dataset_is_there_when_named_and_a_variant_counts_without_its_original(
    with_entries,
):
    """A variant counts in RI only then."""
    catalog = with_entries(datasets={"mine": {"optional": True, "variant_of": "noto"}})
    assert "mine" not in grid(catalog).datasets
    both = grid(catalog, datasets="all", targets="all")
    assert "mine" in both.datasets and "mine" not in both.ood and "mine" not in both.targets
    alone = grid(catalog, datasets=["mine", "twemoji"], targets=["twemoji"])
    assert alone.ood == ["twemoji", "mine"]
    assert any(phrase == "RI with Noto" for phrase in alone.conditions())


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_and_r_among_all_classes_are_their_photos_and_have_no_part_in_ri(name):
    chosen = grid(family="imagenet", datasets="all", targets="all")
    original, whole = chosen.datasets[name], chosen.datasets[f"{name}_1000"]
    assert name in chosen.ood and whole.name not in [*chosen.ood, *chosen.targets]
    assert (whole.sources, whole.images, whole.source_group) == (
        original.sources,
        original.images,
        name,
    )
    spaces = [chosen.catalog.label_space(entry) for entry in (original, whole)]
    assert [len(space.keys) for space in spaces] == [200, 1000] and set(spaces[0].keys) < set(
        spaces[1].keys
    )


def test_corrupted_noto_shares_its_sources_and_is_there_only_when_named():
    assert (
        "noto_corrupted" not in grid().datasets
        and "noto_corrupted" not in grid(datasets="all", targets="all").targets
    )
    chosen = grid(datasets=["noto", "noto_corrupted", "openmoji"], leak_free=True)
    assert set(chosen.ood) == set(chosen.datasets) and chosen.evaluation_groups()[
        "noto_corrupted"
    ] == ["noto_corrupted"]
    assert chosen.leak_free_groups() == dict.fromkeys(("noto", "noto_corrupted"), "noto")


def test_a_dataset_in_distribution_is_evaluated_and_is_neither_target_nor_part_of_ri(with_entries):
    catalog = with_entries(datasets={"mine": {"role": "in_distribution"}})
    chosen = grid(catalog, targets="all")
    assert "mine" in chosen.datasets and "mine" not in chosen.targets and "mine" not in chosen.ood
    with pytest.raises(UserError, match="config, targets: 'mine'"):
        grid(catalog, targets=["mine"])


def test_a_model_pretrained_here_is_for_its_own_family():
    chosen = grid(family="fashion", models=["fashion_cnn_1k"])
    assert chosen.head("fashion_cnn_1k") == "pretrained"
    assert [entry.name for entry in chosen.datasets_read()][-1] == "fashion_train"
    assert "fashion_train" not in chosen.datasets
    with pytest.raises(UserError, match="config, models: 'fashion_cnn_1k'.*fashion.*emoji"):
        grid(models=["fashion_cnn_1k"])


def fashion_networks(with_entries, **changes_by_name):
    """A catalogue with copies of a network of `fashion`, each with keys of `pretrain` changed.

    None takes a key away. Their group is that of the network, which has rates, if none is given.
    """
    entry = vars(project_catalog().models["fashion_cnn_1k"])
    keys = ("families", "label", "type", "pretraining", "architecture", "preprocessing")
    common = {**{key: entry[key] for key in keys}, "source": None, "weights": None}
    models = {}
    for name, changes in changes_by_name.items():
        group = changes.pop("group", entry["group"])
        training = {**FASHION_TRAINING, **changes}
        stated = {key: setting for key, setting in training.items() if setting is not None}
        models[name] = {**common, "group": group, "pretrain": stated}
    return with_entries(models=models)


FASHION_TRAINING = {
    "dataset": "fashion_train",
    "test": "fashion",
    "size": 60,
    "steps": 40,
    "batch_size": 16,
    "lr": 0.002,
}


def test_a_pretraining_has_the_settings_of_its_recipe_or_of_sgd(with_entries):
    catalog = fashion_networks(
        with_entries,
        by_recipe={"recipe": "adamw", "shift": 2, "seed": 7},
        by_sgd={"steps": None, "epochs": 220, "weight_decay": 0.0005},
    )
    chosen = grid(catalog, family="fashion", models=["by_recipe", "by_sgd"])
    training = from_params(TrainingSettings, chosen.pretraining("by_recipe"))
    assert (training.optimizer, training.clip_norm, training.weight_decay) == ("adamw", 1.0, 0.1)
    assert (training.epochs, training.steps, training.batch_size) == (None, 40, 16)
    assert training.micro == 16, "BatchNorm needs whole batches"
    training = from_params(TrainingSettings, chosen.pretraining("by_sgd"))
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0.9, 0.0005)
    assert (training.epochs, training.steps, training.clip_norm) == (220, None, None)
    rates = list(learning_rates(1.0, 10_000, training))
    assert rates.index(max(rates)) == 999, "only the fraction bounds the warm-up"


def test_a_models_proxy_is_the_part_that_it_was_pretrained_on(with_entries):
    catalog = fashion_networks(with_entries, first={"seed": 0}, second={"seed": 9, "size": 0.5})
    chosen = grid(catalog, family="fashion", models=["first", "second"])
    parts = [
        (view["pretraining_size"], view["pretraining_seed"])
        for view in (chosen.view_of(model, []) for model in ("first", "second"))
    ]
    assert parts == [("60", 0), ("0.5", 9)]


@pytest.mark.parametrize(
    ("size", "budget", "available"),
    [(50_001, "all", 50_000), (101, 100, 100), (60_000, 55_000, 50_000)],
)
def test_pretraining_on_more_images_than_there_are_is_refused(
    with_entries, size, budget, available
):
    catalog = fashion_networks(with_entries, mine={"size": size})
    choices = {"family": "fashion", "models": ["mine"]}
    choices["budget"] = {"max_images_per_dataset": budget}
    message = rf"mine: pretrain\.size is {size}.*fashion_train.*{available}"
    with pytest.raises(UserError, match=message):
        grid(catalog, **choices)


def test_a_rate_by_model_or_group_is_that_models_alone(with_entries):
    catalog = fashion_networks(
        with_entries, one={"group": "small"}, two={"group": "small"}, three={}
    )
    choices = {"family": "fashion", "models": ["one", "two", "three"], "methods": ["ft", "wise_ft"]}
    rates = {"small": 0.1, "two": "2e-1", "three": 0.3}
    chosen = grid(catalog, **choices, method_settings={"ft": {"lr": rates}})
    settings = {model: chosen.settings("ft", model) for model in choices["models"]}
    assert {model: setting["lr"] for model, setting in settings.items()} == {
        "one": 0.1,
        "two": 0.2,
        "three": 0.3,
    }
    same_everywhere = grid(catalog, **choices, method_settings={"ft": {"lr": 0.1}})
    assert list(chosen.methods) == list(same_everywhere.methods), "it is no sweep"
    assert settings["one"] == same_everywhere.settings("ft", "one")
    assert list(settings["one"]) == list(same_everywhere.settings("ft", "one"))
    # Another model has its rate; nothing of the others changes.
    fewer = grid(
        catalog,
        **{**choices, "models": ["one"]},
        method_settings={"ft": {"lr": {"small": 0.1}}},
    )
    assert fewer.settings("ft", "one") == settings["one"]
    again = resolve_grid(validated(chosen.as_config(), "config", "config.yaml"), catalog)
    assert again.digest == chosen.digest


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"small": 0.1}, "'ft'.* for small, .*'three'"),
        ({"small": 0.1, "thre": 0.3}, "method_settings, ft, lr: .*'thre'.*'three'"),
        ({"small": 0.1, "three": 0}, "ft: .*'lr' of 'three' is 0"),
        ({"small": 0.1, "three": [0.1]}, "ft: .*'lr' of 'three' is"),
        ({"small": 0.1, "three": "fast"}, "ft: .*'lr' of 'three' is 'fast'"),
        ({"small": 0.1, 3: 0.3}, "ft, lr: .*3"),
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
    rates = {"lite": 0.02, "big": 0.01}
    defaults = {
        **grid().family.defaults,
        "models": ["small_net", "large_net"],
        "targets": ["my_set"],
    }
    catalog = with_entries(
        families={"mine": {"defaults": defaults, "recipes": {"adamw": {"ft": {"lr": rates}}}}},
        datasets={"my_set": {"family": "mine"}},
        models={"small_net": {"group": "lite"}, "large_net": {"group": "big"}},
    )
    chosen = grid(catalog, family="mine", methods=["ft"])
    rates_of_models = [chosen.settings("ft", name)["lr"] for name in chosen.models]
    assert rates_of_models == [0.02, 0.01]


def own_family(with_entries, models=("mine",), head="published", **changes):
    """A catalogue with a family that has one model and one dataset."""
    defaults = {**grid().family.defaults, "models": ["my_model"], "targets": ["my_set"]}
    return with_entries(
        families={"mine": {"defaults": defaults, **changes}},
        datasets={"my_set": {"family": "mine"}},
        models={"my_model": {"families": list(models), "head": head}},
    )


@pytest.mark.parametrize(
    ("family", "choices", "place"),
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
def test_a_family_that_cannot_be_run_is_explained(with_entries, family, choices, place):
    with pytest.raises(UserError, match=place):
        grid(own_family(with_entries, **family), family="mine", **choices)


def test_a_family_without_datasets_is_explained(with_entries):
    with pytest.raises(UserError, match="config, family: .*mine"):
        grid(with_entries(families={"mine": {}}), family="mine", targets="all")


def test_the_largest_seeds_are_taken_by_what_uses_them():
    largest = (1 << 31) - 1
    config = validated(
        {"seeds": [largest], "stir": {"seed": (1 << 64) - 1}}, "config", "config.yaml"
    )
    pa.array(config["seeds"], pa.int32())  # a column of rows
    torch.Generator().manual_seed(config["stir"]["seed"])


def test_numbers_that_the_command_line_gives_as_text_are_numbers():
    given = {
        "seeds": ["0", "1"],
        "training": {"epochs": "3", "steps": "5"},
        "image_size": "64",
        "models": ["1"],
    }
    config = validated({**given, "compute": {"warm_start": "False"}}, "config", "config.yaml")
    assert (
        config["seeds"] == [0, 1]
        and config["training"]["epochs"] == 3
        and config["training"]["steps"] == 5
    )
    assert config["image_size"] == 64 and config["models"] == ["1"]
    assert config["compute"]["warm_start"] is False


@pytest.mark.parametrize(
    ("choices", "place"),
    [
        ({"model": "all"}, "config.yaml: .*'model'.*'models'"),
        ({"training": {"lr": 1}}, "config.yaml: .*'lr' in 'training'"),
        ({"training": {3: 1}}, "config.yaml: .*3 in 'training'"),
        ({"training": {"momentum": 0.9}}, "config.yaml: .*'momentum' in 'training'"),
        ({"seeds": [0, 1 << 64]}, "config.yaml: 'seeds.1' is 18446744073709551616.* to 2147483647"),
        ({"seeds": [1 << 31]}, "config.yaml: 'seeds.0' is 2147483648.* to 2147483647"),
        ({"stir": {"seed": 1 << 64}}, "config.yaml: 'stir.seed' is 18446744073709551616"),
        (
            {"compute": {"threads_per_job": 1 << 31}},
            "config.yaml: 'compute.threads_per_job' is 2147483648.* 1024",
        ),
        (
            {"training": {"subset_length": "images"}},
            "config.yaml: 'training.subset_length' is 'images'",
        ),
        ({"training": {"epochs": True}}, "config.yaml: 'training.epochs' is True"),
        ({"training": {"epochs": 0}}, "config.yaml: 'training.epochs' is 0"),
        ({"training": {"steps": 1.5}}, "config.yaml: 'training.steps' is 1.5"),
        ({"statistics": {"confidence": False}}, "config.yaml: 'statistics.confidence' is False"),
        ({"statistics": {"confidence": math.nan}}, "config.yaml: 'statistics.confidence' is nan"),
        ({"statistics": {"confidence": "inf"}}, "config.yaml: 'statistics.confidence' is 'inf'"),
        ({"compute": {"warm_start": 1}}, "config.yaml: 'compute.warm_start' is 1"),
        ({"seeds": []}, "config.yaml: 'seeds'"),
        ({"seeds": [1.0]}, "config.yaml: 'seeds.0' is 1.0"),
        ({"seeds": ["true"]}, "config.yaml: 'seeds.0' is 'true'"),
        (
            {"train_subset": "all"},
            "config.yaml: 'train_subset' is 'all'.*; expected: 'default' .*or a list of sizes",
        ),
        ({"train_subset": []}, "config.yaml: 'train_subset'"),
        ({"train_subset": [0]}, "config.yaml: 'train_subset.0' is 0"),
        ({"train_subset": [1.5]}, "config.yaml: 'train_subset.0' is 1.5"),
        ({"train_subset": [0.5, 0.5 + 1e-14]}, "config, train_subset"),
        ({"protocol": "held"}, "config.yaml: 'protocol' is 'held'"),
        ({"protocol": "held_out"}, "config, protocol: .*emoji"),
        ({"family": "emojis"}, "config: .*'emojis'.*'emoji'"),
        ({"models": ["vit"]}, "config, models.*'vit'.*efficientnet_lite0"),
        ({"models": ["vit_base_patch16_224.none"]}, "config, models: .*augreg_in1k"),
        ({"models": ["none.sam_in1k"]}, "config, models: .*vit_base_patch16_224"),
        ({"methods": "loar"}, "config, methods.*'loar'.*'lora'"),
        ({"targets": ["noto", "nota"]}, "config, targets.*'nota'.*'noto'"),
        ({"targets": ["openmoji"], "datasets": ["noto"]}, "config, targets.*'openmoji'"),
        ({"targets": []}, "config, targets"),
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
            {"method_settings": {"lwf": {"distil": ["a/b", "c"]}}},
            "lwf: .*'distil' is 'a/b'; give 'all' or 'class'",
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
def test_bad_choices_are_refused_with_their_key(choices, place):
    with pytest.raises(UserError, match=place):
        grid(**choices)


def test_dawin_is_refused_on_datasets_that_would_take_it_days():
    # ImageNet-C has 3.75 million images; a budget, or other datasets, make it possible.
    with pytest.raises(
        UserError,
        match="'dawin' cannot be run: .*'imagenet_c' has 3,750,000; .*max_images_per_dataset",
    ):
        grid(family="imagenet", methods=["dawin"])
    assert (
        "dawin"
        in grid(
            family="imagenet", methods=["dawin"], budget={"max_images_per_dataset": 100_000}
        ).methods
    )
    with pytest.raises(UserError, match="'dawin' cannot be run"):
        grid(family="imagenet", methods=["dawin"], budget={"max_images_per_dataset": 100_001})
    others = ["imagenet_a", "imagenet_r", "imagenet_val"]
    assert (
        "dawin"
        in grid(
            family="imagenet", datasets=others, targets=["imagenet_r"], methods=["dawin"]
        ).methods
    )


def test_all_methods_leave_out_what_would_take_days_with_a_notice():
    chosen = grid(family="imagenet", methods="all")
    assert "dawin" not in chosen.methods
    assert any(
        notice.startswith("method 'dawin' is left out: it is too slow") for notice in chosen.notices
    )
    assert "dawin" in grid(methods="all").methods


def test_trainings_share_fisher_information_where_it_does_not_depend_on_the_target():
    # With a proxy it is the pretrained model's; without one, and of methods that start elsewhere,
    # it is not shared.
    with_proxy = grid(family="imagenet", methods=["ewc", "ewc_empirical", "lwf", "replay"])
    assert with_proxy.reference is not None
    assert with_proxy.shared_fisher("ewc") == (2000, "sampled")
    assert with_proxy.shared_fisher("ewc_empirical") == (2000, "empirical")
    assert with_proxy.shared_fisher("lwf") is None and with_proxy.shared_fisher("replay") is None
    assert grid(family="emoji", methods=["ewc"]).shared_fisher("ewc") is None


def test_a_family_that_asks_for_the_worst_group_needs_a_dataset_with_groups(with_entries):
    defaults = {**grid().family.defaults, "models": ["my_model"], "targets": ["my_set"]}
    family = {"defaults": defaults, "scores": ["macro_f1", "worst_group"]}
    entries = {"models": {"my_model": {"families": ["mine"]}}}
    without = with_entries(
        families={"mine": family}, datasets={"my_set": {"family": "mine"}}, **entries
    )
    message = "families/mine.yaml, scores: worst_group is asked for, but no dataset .* has groups"
    with pytest.raises(UserError, match=message):
        grid(without, family="mine")
    having = with_entries(
        families={"mine": family},
        datasets={"my_set": {"family": "mine", "groups": "hospital"}},
        **entries,
    )
    assert grid(having, family="mine").datasets["my_set"].groups == "hospital"

"""The catalogue's own entries, and what is said of bad ones."""

import shutil
from pathlib import Path

import pytest
import yaml

from rib.catalog import Catalog, mechanism_settings, validated
from rib.grid import Grid
from rib.io import UserError
from rib.runs import Run

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "workflow/catalog"


COMMON = {"batch_norm": "frozen", "dropout": 0.0, "drop_path": 0.0}


def config(**choices):
    return validated(choices, "config", "config.yaml")


def grid(**choices):
    return Grid(config(**choices), Catalog([CATALOG]))


def test_every_entry_is_valid_and_refers_to_what_exists():
    catalog = Catalog([CATALOG])
    for dataset in catalog.datasets.values():
        assert dataset.family in catalog.families
        assert catalog.layout_file(dataset.layout).is_file()
        codepoints = set(catalog.class_space(dataset.family).keys)
        assert set(dataset.exclude) <= codepoints and set(catalog.icons(dataset)) <= codepoints
    for model in catalog.models.values():
        assert set(model.families) <= set(catalog.families)
    assert not set(catalog.datasets) & set(catalog.models), "both have a folder in data/raw"
    for styled in (catalog.models, catalog.methods):
        looks = [tuple(entry.style.values()) for entry in styled.values()]
        assert len(set(looks)) == len(looks)


def test_config_yaml_states_the_schema_defaults_and_comments_every_key():
    text = (ROOT / "config.yaml").read_text()
    assert validated(yaml.safe_load(text), "config", "config.yaml") == config()
    for line in text.splitlines():
        assert not line.strip() or "#" in line, f"no comment: {line}"


def test_the_default_grid_has_the_promised_size():
    chosen = grid()
    assert len(chosen.models) >= 2 and len(chosen.methods) >= 4 and len(chosen.targets) >= 5
    assert len(chosen.runs()) == len(chosen.models) * (1 + len(chosen.methods) * len(chosen.targets))
    assert Run("efficientnet_lite0", "none", "pretrained", "all", 0) in chosen.runs()


@pytest.mark.parametrize("train", [0.8, 0.9, 0.55])
def test_shares_that_leave_nothing_to_test_are_refused(train):
    for select in (round(1 - train, 2), 0.5):
        with pytest.raises(UserError, match="split"):
            grid(family="imagenet", protocol="held_out", split={"train": train, "select": select})
    kept = grid(family="imagenet", protocol="held_out", split={"train": train, "select": round(0.9999 - train, 4)})
    assert sum(kept.shares.values()) < 1


def test_figures_show_the_largest_size():
    assert grid(downstream_size=[0.5, "all", 10]).shown_size == "all"
    assert (
        grid(downstream_size=[0.25, 0.5, 0.125]).shown_size == "0.5"
        and grid(downstream_size=[9, 100]).shown_size == "100"
    )


def test_leak_free_leaves_shared_sources_out_unless_they_were_held_out():
    groups = grid(family="imagenet", leak_free=True).leak_free_groups()
    assert groups["imagenet_cartoon"] == groups["imagenet_c"] == groups["imagenet_val"] and "imagenet_r" not in groups
    assert grid(family="imagenet").leak_free_groups() is None
    assert grid(family="imagenet", leak_free=True, protocol="held_out").leak_free_groups() is None


def test_a_dataset_is_split_after_those_before_it_that_share_its_sources():
    chosen = grid(family="imagenet", protocol="held_out")
    assert chosen.split_before("imagenet_val") == chosen.split_before("imagenet_r") == []
    assert chosen.split_before("imagenet_drawing") == ["imagenet_val", "imagenet_cartoon"]
    more = grid(family="imagenet", protocol="held_out", datasets="all")
    assert more.split_before("imagenet_c_extra")[-1] == "imagenet_c" and more.split_before("imagenet_val") == []


def test_numbers_hang_on_the_budget_and_on_what_is_left_out():
    said = "; ".join(grid(family="imagenet", budget={"max_images_per_dataset": 73}, leak_free=True).conditions())
    assert "73 images" in said and "leak-free" in said and "paper" in said
    plain = "; ".join(grid(family="imagenet").conditions())
    assert "73" not in plain and "leak-free" not in plain


def test_seeds_multiply_the_fine_tuned_runs_only():
    runs = grid(models=["efficientnet_lite0"], methods=["ft"], targets=["noto"], seeds=[3, 4]).runs()
    assert [(run.method, run.seed) for run in runs] == [("pretrained", 0), ("ft", 3), ("ft", 4)]


def test_all_takes_the_whole_catalogue():
    chosen = grid(models="all", methods="all", targets="all", image_size="native")
    assert len(chosen.targets) == 8 and len(chosen.models) == 3
    assert {chosen.geometry(model).size for model in chosen.models} == {224, 240, 260}


def test_numbers_that_the_command_line_gives_as_text_are_numbers():
    read = config(seeds=["0", "1"], training={"epochs": "3", "momentum": "0.5"}, image_size="64", models=["1"])
    assert read["seeds"] == [0, 1] and read["training"]["epochs"] == 3 and read["training"]["momentum"] == 0.5
    assert read["image_size"] == 64 and read["models"] == ["1"]
    assert config(compute={"warm_start": "False"})["compute"]["warm_start"] is False


def test_a_parent_is_added_with_a_line():
    chosen = grid(methods=["wise_ft"])
    assert list(chosen.methods) == ["ft", "wise_ft"]
    assert chosen.notices == ["method 'ft' is added to the grid: 'wise_ft' averages its weights"]


def test_a_list_of_values_sweeps_and_names_its_variants():
    chosen = grid(methods=["lora"], method_settings={"lora": {"rank": [4, 8], "lr": ["1e-5", 0.5]}})
    assert sorted(chosen.methods) == [
        "lora-lr0.00001-rank4",
        "lora-lr0.00001-rank8",
        "lora-lr0.5-rank4",
        "lora-lr0.5-rank8",
    ]
    assert chosen.methods["lora-lr0.00001-rank4"].settings["lr"] == 1e-5
    assert chosen.methods["lora-lr0.5-rank8"].settings["rank"] == 8
    assert chosen.methods["lora-lr0.5-rank8"].label == "LoRA, lr 0.5, rank 8"


def test_what_hangs_on_a_swept_method_is_swept_with_it():
    chosen = grid(
        methods=["wise_ft", "lp_ft"], method_settings={"ft": {"lr": [0.1, 0.2]}, "linear_probe": {"lr": [1, 2]}}
    )
    parents = {name: method.parents for name, method in chosen.methods.items()}
    assert parents["wise_ft-lr0.2"] == ("ft-lr0.2",) and parents["lp_ft-lr1"] == ("linear_probe-lr1",)
    assert len(parents) == 2 + 2 + 2 + 2 and "ft" not in parents


def test_config_overrides_the_family_which_overrides_the_entry():
    assert grid(methods=["ft"]).methods["ft"].settings["lr"] == 0.0002
    assert grid(methods=["ft"], method_settings={"ft": {"lr": 3}}).methods["ft"].settings["lr"] == 3


def test_sizes_multiply_the_fine_tuned_runs_only():
    runs = grid(
        models=["efficientnet_lite0"], methods=["ft"], targets=["noto"], downstream_size=["all", "50", "0.5"]
    ).runs()
    assert [(run.method, run.size) for run in runs] == [
        ("pretrained", "all"),
        ("ft", "all"),
        ("ft", "50"),
        ("ft", "0.5"),
    ]


def test_what_cannot_be_run_here_is_left_out_with_a_line_or_refused_by_name():
    notices = grid(methods="all").notices
    assert "method 'greedy_soup' is left out: it selects on held-out images; set protocol to held_out" in notices
    assert "method 'replay' is left out: it needs a reference dataset, and family emoji has none" in notices
    with pytest.raises(UserError, match="'greedy_soup' can't be run: it selects on held-out images"):
        grid(methods=["greedy_soup"])


def test_a_method_for_vits_is_left_out_on_cnns_with_a_line():
    notices = grid(methods="all").notices
    assert "method 'lora_released' is left out: it is for models of type vit, and those chosen are cnn" in notices
    with pytest.raises(UserError, match="'lora_released' can't be run: it is for models of type vit"):
        grid(methods=["ft", "lora_released"])


def test_models_of_both_types_each_have_what_is_for_them(own):
    models = yaml.safe_load((CATALOG / "models.yaml").read_text())
    (own / "models.yaml").write_text(yaml.safe_dump({"my_vit": {**models["efficientnet_lite0"], "type": "vit"}}))
    choices = {"models": ["efficientnet_lite0", "my_vit"], "methods": ["lora_released", "lwf"]}
    chosen = Grid(config(**choices), Catalog([CATALOG, own]))
    assert chosen.methods_of("efficientnet_lite0") == ["lwf"] == chosen.shared_methods()
    assert "lora_released" in chosen.methods_of("my_vit")
    assert "method 'lora_released' is not run on 'efficientnet_lite0': it is not for cnns" in chosen.notices


def test_a_merge_is_run_on_the_models_that_all_its_parents_are_for(own):
    """A soup for every type, of lora_released, which is for ViTs: on a CNN there is nothing to average."""
    models = yaml.safe_load((CATALOG / "models.yaml").read_text())
    (own / "models.yaml").write_text(yaml.safe_dump({"my_vit": {**models["efficientnet_lite0"], "type": "vit"}}))
    catalog = with_method(own, mechanism="soup", settings={}, parents=["lora_released", "ft"])
    assert set(catalog.methods["mine"].types) == {"cnn", "vit"}
    chosen = Grid(config(models=["efficientnet_lite0", "my_vit"], methods=["mine"]), catalog)
    assert set(chosen.methods_of("my_vit")) == {"lora_released", "ft", "mine"}
    assert chosen.methods_of("efficientnet_lite0") == chosen.shared_methods() == ["ft"]
    runs = {(run.model, run.method) for run in chosen.runs()}
    assert ("my_vit", "mine") in runs and ("efficientnet_lite0", "mine") not in runs
    assert any(line.startswith("method 'mine' is not run on 'efficientnet_lite0'") for line in chosen.notices)


def test_what_hangs_on_a_method_that_cannot_be_run_is_left_out_too(own):
    catalog = with_method(own, mechanism="soup", settings={}, parents=["ft", "replay"])
    chosen = Grid(config(methods="all"), catalog)
    assert "mine" not in chosen.methods and "replay" not in chosen.methods
    assert any(
        line.startswith("method 'mine' is left out: of 'replay': it needs a reference") for line in chosen.notices
    )


def test_parents_swept_over_the_same_setting_are_told_apart():
    settings = {"ft": {"lr": [0.1, 0.2]}, "lwf": {"lr": [0.3, 0.4]}}
    soups = {
        name: m.parents
        for name, m in grid(methods=["soup"], method_settings=settings).methods.items()
        if "soup" in name
    }
    assert len(soups) == 4
    assert soups["soup-ft_lr0.1-lwf_lr0.4"] == ("ft-lr0.1", "ewc", "lwf-lr0.4")
    both = grid(methods=["lp_ft"], method_settings={"lp_ft": {"lr": [1, 2]}, "linear_probe": {"lr": [3, 4]}}).methods
    assert both["lp_ft-lr1-linear_probe_lr4"].settings["lr"] == 1
    assert both["lp_ft-lr1-linear_probe_lr4"].parents == ("linear_probe-lr4",) and len(both) == 6


@pytest.mark.parametrize("values", [["a/b", "c"], [0.1, 0.1]])
def test_swept_values_that_cannot_name_a_variant_are_refused(values):
    with pytest.raises(UserError, match="can't be told from another or holds what a path can't"):
        grid(methods=["lwf"], method_settings={"lwf": {"distil": values} if "c" in values else {"lr": values}})


def test_a_setting_that_is_a_list_is_no_sweep(own):
    (own / "methods/layered.py").write_text(
        "from rib.methods import mechanism\n\n@mechanism\nclass L:\n    def __init__(self, *, layers: list[int]): ...\n"
    )
    catalog = with_method(own, mechanism="layered", settings={"layers": [0, 1]})
    assert Grid(config(methods=["mine"]), catalog).methods["mine"].settings == {"layers": [0, 1]}
    for value, message in (([], "is an empty list"), (3, "holds 3; give a list"), ([0, "x"], "is 'x'; give a whole")):
        with pytest.raises(UserError, match=f"the setting 'layers' {message}"):
            _ = with_method(own, mechanism="layered", settings={"layers": value}).methods


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def items(\n", r"bad\.py line 1 is no Python \('\(' was never closed\); correct it"),
        (b"\xff", r"bad\.py.* is no Python .*utf-8"),
        (None, r"bad\.py can't be read \(Is a directory\)"),
    ],
)
def test_a_module_of_the_user_that_is_no_python_is_explained(own, source, message):
    path = own / "methods/bad.py"
    if source is None:
        path.mkdir()
    else:
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(UserError, match=message):
        _ = with_method(own, mechanism="bad").methods


def test_a_module_of_the_user_does_not_hide_behind_the_librarys(own):
    (own / "methods/replay.py").write_text("")
    with pytest.raises(UserError, match=r"replay\.py: a module of this name is in .* already; rename it"):
        _ = with_method(own).methods


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"protocol": "held_out"}, "held_out can't be run on family emoji, whose datasets have one image per class"),
        (
            {"method_settings": {"lora": {"ranks": 1}}},
            r"config, method_settings, lora: unknown setting 'ranks' \(did you mean 'rank'",
        ),
        ({"method_settings": {"lora": {"rank": 1.5}}}, "the setting 'rank' is 1.5; give a whole number"),
        ({"method_settings": {"lora": {"rank": True}}}, "the setting 'rank' is True; give a whole number"),
        ({"method_settings": {"lora": {"lr": True}}}, "the setting 'lr' is True; give a number"),
        ({"method_settings": {"lora": {"rank": [4, True]}}}, "the setting 'rank' is True; give a whole number"),
        ({"downstream_size": [0]}, "'downstream_size.0' is 0"),
        ({"downstream_size": [1.5]}, "'downstream_size.0' is 1.5"),
        ({"downstream_size": [0.5, 0.5 + 1e-14]}, "two fractions agree in their first twelve digits"),
        ({"method_settings": {"lora": {"rank": float("nan")}}}, "the setting 'rank' is nan; give a whole number"),
        (
            {"method_settings": {"lora": {"also": False}}},
            "the setting 'also' is False; give text, in quotes where YAML",
        ),
        ({"method_settings": {"lora": {"lr": [[0.1]]}}}, r"the setting 'lr' is \[0\.1\]; give a number"),
        ({"method_settings": {"lora": {3: 1}}}, "lora: unknown setting 3; allowed are"),
        (
            {"methods": ["lora"], "method_settings": {"lora": {"lr": [1, 10**300]}}},
            "holds what a path can't.*not too long",
        ),
    ],
)
def test_bad_choices_of_methods_and_sizes_are_explained(choices, message):
    with pytest.raises(UserError, match=message):
        grid(**choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"model": "all"},
            r"config\.yaml: unknown key 'model' \(did you mean 'models'\?\); allowed are accept, analyses, archives, budget",
        ),
        ({"training": {"lr": 1}}, r"config\.yaml: unknown key 'lr' in 'training'; allowed are batch_size, epochs"),
        ({"training": {"momentum": 1.5}}, r"'training\.momentum' is 1\.5, which is not valid .*: momentum of SGD"),
        ({"seeds": []}, "'seeds' is .*whole numbers from 0"),
        ({"protocol": "held"}, "'protocol' is 'held'.*trains on the whole target"),
        ({"family": "emojis"}, r"unknown family 'emojis' \(did you mean 'emoji'\?\); known are digits, emoji"),
        ({"models": ["vit"]}, "unknown model 'vit'.*known are .*efficientnet_lite0"),
        ({"methods": "loar"}, r"unknown method 'loar' \(did you mean 'lora'\?\); known are ewc, "),
        ({"targets": ["noto", "nota"]}, r"config, targets.*unknown target 'nota' \(did you mean 'noto'\?\)"),
        ({"targets": []}, "the list is empty"),
        ({"seeds": [1.0]}, r"'seeds\.0' is 1\.0, which is not valid \(it is not of type 'integer'\)"),
        ({"seeds": [True]}, r"'seeds\.0' is True, which is not valid \(it is not of type 'integer'\)"),
        ({"seeds": ["true"]}, r"'seeds\.0' is 'true', which is not valid"),
        ({"training": {"epochs": True}}, r"'training\.epochs' is True, which is not valid"),
        ({"training": {"weight_decay": False}}, r"'training\.weight_decay' is False, which is not valid"),
        ({"downstream_size": [True]}, r"'downstream_size\.0' is True, which is not valid"),
        ({"compute": {"warm_start": 1}}, r"'compute\.warm_start' is 1, which is not valid"),
        ({"seeds": [1 << 63]}, r"'seeds\.0' is 9223372036854775808, which is not valid"),
        ({"training": {"weight_decay": float("nan")}}, r"'training\.weight_decay' is nan, which is not valid"),
        ({"training": {"weight_decay": "inf"}}, r"'training\.weight_decay' is 'inf', which is not valid"),
        ({"models": ["a\nb"]}, r"unknown model 'a\\nb'; known are"),
        ({"training": {3: 1}}, r"config\.yaml: unknown key 3 in 'training'; allowed are"),
        ({"archives": "a\0b"}, r"'archives' is 'a\\x00b', which is not valid"),
        ({"seeds": [10**5000]}, "it holds itself, or a number of thousands of digits"),
        ({"budget": {"x" * 5000: 1}}, r"unknown key 'x{99}\.\.\. in 'budget'"),
    ],
)
def test_bad_choices_are_explained(choices, message):
    with pytest.raises(UserError, match=message):
        grid(**choices)


@pytest.fixture
def own(tmp_path):
    """A user's catalogue folder beside the project's."""
    (tmp_path / "methods").mkdir()
    return tmp_path


def with_method(folder, name="mine", **changes):
    entry = {
        "label": "x",
        "mechanism": "ft",
        "settings": {"lr": 0.1, **COMMON},
        "source": "s",
        "style": {"colour": "#000000", "marker": "x"},
    }
    (folder / "methods.yaml").write_text(yaml.safe_dump({name: {**entry, **changes}}))
    return Catalog([CATALOG, folder])


def test_a_folder_of_the_user_adds_methods(own):
    shutil.copy(CATALOG.parent / "lib/rib/methods/lwf.py", own / "methods/special.py")
    settings = {"lr": 1, **COMMON, "temperature": 2, "weight": 1, "distil": "all"}
    catalog = with_method(own, mechanism="special", settings=settings)
    assert catalog.mechanism_file("special") == own / "methods/special.py"
    assert list(catalog.methods) == [*Catalog([CATALOG]).methods, "mine"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mechanism": "none_such"}, "unknown mechanism 'none_such'.*known are ewc, ft"),
        (
            {"settings": {"lr": 1, "batchnorm": "x"}},
            r"mine: unknown setting 'batchnorm' \(did you mean 'batch_norm'\?\)",
        ),
        ({"settings": {"lr": 1}}, "the setting 'batch_norm' is missing"),
        ({"settings": {"lr": "fast", **COMMON}}, "the setting 'lr' is 'fast'; give a number"),
        ({"settings": {"lr": [], **COMMON}}, "the setting 'lr' is an empty list; give a value, or several to sweep"),
        ({"name": "pretrained"}, "'pretrained' is the model before fine-tuning and needs no entry"),
        ({"starts_from": "none_such"}, "unknown parent 'none_such'"),
        ({"starts_from": "wise_ft"}, "its parent 'wise_ft' is itself a merge"),
        ({"starts_from": "lp_ft"}, "its start 'lp_ft' itself starts from another method"),
        ({"parents": ["ft"]}, "parents are for merges; name what it starts from in starts_from"),
        ({"mechanism": "soup", "settings": {}, "starts_from": "ft"}, "starts_from is for methods that train"),
        ({"mechanism": "soup", "settings": {}, "parents": ["soup"]}, "its parent 'soup' is itself a merge"),
        ({"types": ["mlp"]}, "types of models|'mlp'"),
        ({"colour": "red"}, "unknown key 'colour' in 'mine'"),
        ({"style": {"colour": "red", "marker": "x"}}, "'mine.style.colour' is 'red'.*hex colour"),
    ],
)
def test_a_bad_method_is_explained(own, changes, message):
    with pytest.raises(UserError, match=message):
        _ = with_method(own, **changes).methods


def test_a_name_may_be_defined_once(own):
    (own / "methods.yaml").write_text((CATALOG / "methods.yaml").read_text())
    with pytest.raises(UserError, match=r"'ft' is defined in .*methods\.yaml already"):
        _ = Catalog([CATALOG, own]).methods


def test_settings_are_the_mechanisms_keyword_arguments():
    folder = CATALOG.parent / "lib/rib/methods"
    form, settings = mechanism_settings(folder / "lwf.py")
    assert form == "finetune"
    assert list(settings) == ["temperature", "weight", "distil", "lr", "batch_norm", "dropout", "drop_path"]
    assert mechanism_settings(folder / "wise_ft.py") == ("recipe", {"alpha": "float"})
    assert mechanism_settings(folder / "wise_ft_curve.py") == ("curve", {"steps": "int"})
    assert mechanism_settings(folder / "greedy_soup.py") == ("select", {})
    assert mechanism_settings(folder / "linear_probe.py") == ("finetune", {"lr": "float"})


def test_a_number_that_yaml_reads_as_text_is_a_number(own):
    catalog = with_method(own, settings={"lr": "1e-3", **COMMON})
    assert catalog.methods["mine"].settings["lr"] == 0.001


def with_dataset(folder, name="mine", **changes):
    entry = yaml.safe_load((CATALOG / "datasets.yaml").read_text())["noto"]
    entry = {key: value for key, value in {**entry, **changes}.items() if value is not None}
    (folder / "datasets.yaml").write_text(yaml.safe_dump({name: entry}))
    return Catalog([CATALOG, folder])


def test_a_layouts_number_that_yaml_reads_as_text_is_a_number(own):
    assert with_dataset(own, settings={"margin": "1e-2"}).datasets["mine"].settings == {"margin": 0.01}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "iconifi"}, r"unknown layout 'iconifi' \(did you mean 'iconify'\?\)"),
        ({"settings": {"margn": 0.1}}, r"datasets\.yaml, mine: unknown setting 'margn' \(did you mean 'margin'\?\)"),
        ({"settings": {"margin": "wide"}}, r"mine: the setting 'margin' is 'wide'; give a number"),
        ({"settings": {}}, "mine: the setting 'margin' is missing"),
        (
            {"source": {"kind": "npm", "file": "x.tgz", "digest": "sha512-x"}},
            "the key 'package' is missing in 'mine.source'",
        ),
        ({"name": "none"}, "'none' stands for no target"),
        ({"name": "efficientnet_lite0"}, "'efficientnet_lite0' names both a dataset and a model"),
        ({"name": "mine\n"}, r"'mine\\n' is no name that can be used here .*a dataset's name, part of paths"),
        ({"name": "suite_emoji"}, "'suite_emoji' is no name that can be used here"),
        ({"name": 7}, "7 is no name that can be used here .*it is not of type 'string'"),
        ({"settings": {"margin": [0.1, 0.2]}}, r"the setting 'margin' is \[0\.1, 0\.2\]; give a number"),
        ({"icons_file": "../../secret.csv"}, r"'mine\.icons_file' is '\.\./\.\./secret\.csv', which is not valid"),
        ({"exclude": {30: "too dark"}}, r"30 in 'mine\.exclude' is no name .*in quotes where YAML reads a number"),
        ({"label": "\ud800"}, "is not valid YAML: .* escape code"),
        (
            {"source": None, "sources": [{"kind": "folder", "path": "a"}, {"kind": "folder", "path": "b"}]},
            r"mine: two of its sources have the file mine\.tar; give each a name by file",
        ),
        ({"source": None, "archives_of": ""}, "mine: unknown dataset ''; known are"),
        (
            {"source": {"kind": "folder", "path": "~nobody_of_this_name/x"}},
            "mine: the folder that ~nobody_of_this_name/x stands for is not known; write the whole path",
        ),
        ({"source": {"kind": "folder", "path": "a\0"}}, r"'mine\.source\.path' is 'a\\x00', which is not valid"),
        (
            {"source": {"kind": "npm", "package": "-g", "version": "1", "file": "x.tgz", "digest": "sha512-x"}},
            r"'mine\.source\.package' is '-g', which is not valid",
        ),
        (
            {"source": {"kind": "pypi", "package": "x", "version": "1", "file": "x.tgz", "digest": "sha512-x"}},
            r"'mine\.source\.file' is 'x\.tgz'.*a wheel, named",
        ),
        (
            {"source": {"kind": "hub", "repo": "a/b", "path": "../x.safetensors", "file": "x.safetensors"}},
            r"'mine\.source\.path' is '\.\./x\.safetensors'.*a file in the repository",
        ),
    ],
)
def test_a_bad_dataset_is_explained(own, changes, message):
    with pytest.raises(UserError, match=message):
        _ = with_dataset(own, **changes).sources


def with_more_datasets(folder, **changes):
    """The emoji family with one more dataset."""
    entry = yaml.safe_load((CATALOG / "datasets.yaml").read_text())["noto"]
    (folder / "datasets.yaml").write_text(yaml.safe_dump({"mine": {**entry, **changes}}))
    return Catalog([CATALOG, folder])


def test_what_a_licence_forbids_to_tune_on_is_evaluated_only_unless_accepted(own):
    terms = {"accept": "mine_tuning", "terms": "Its licence forbids tuning on it."}
    catalog = with_more_datasets(own, tuning=terms)
    chosen = Grid(config(targets="all"), catalog)
    assert "mine" not in chosen.targets and "mine" in chosen.ood()
    assert any("'mine' is evaluated and not fine-tuned on: Its licence forbids" in line for line in chosen.notices)
    with pytest.raises(
        UserError, match="'mine' can't be a target: Its licence forbids .* list mine_tuning in config's"
    ):
        Grid(config(targets=["mine"]), catalog)
    accepted = Grid(config(targets="all", accept=["mine_tuning"]), catalog)
    assert "mine" in accepted.targets
    assert (
        "dataset 'mine' is fine-tuned on, as mine_tuning accepts: Its licence forbids tuning on it." in accepted.notices
    )


def test_fewer_datasets_leave_fewer_default_targets_and_say_so():
    chosen = grid(datasets=["noto", "twemoji", "fluent_3d"])
    assert chosen.targets == ["noto", "twemoji"] and list(chosen.datasets) == ["noto", "twemoji", "fluent_3d"]
    assert any(phrase.startswith("without OpenMoji, Fluent flat") for phrase in chosen.conditions())
    with pytest.raises(UserError, match="unknown target 'openmoji'"):
        grid(datasets=["noto"], targets=["openmoji"])


def test_an_optional_dataset_is_there_when_named_and_a_variant_is_no_part_of_ri_beside_its_original(own):
    catalog = with_more_datasets(own, optional=True, variant_of="noto")
    assert "mine" not in Grid(config(), catalog).datasets
    both = Grid(config(datasets="all", targets="all"), catalog)
    assert "mine" in both.datasets and "mine" not in both.ood() and "mine" not in both.targets
    alone = Grid(config(datasets=["mine", "twemoji"], targets=["twemoji"]), catalog)
    assert alone.ood() == ["twemoji", "mine"]
    assert any(phrase == "RI with Noto" for phrase in alone.conditions())


def test_what_config_accepts_must_be_known():
    with pytest.raises(UserError, match=r"config, accept: unknown word 'objectnet_tunning' \(did you mean"):
        grid(accept="objectnet_tunning")


def test_a_reference_that_is_not_there_and_a_family_without_models_are_explained(own):
    with pytest.raises(UserError, match="family emoji has no dataset of role reference; give it one or set reference"):
        grid(reference="noto")
    with pytest.raises(UserError, match="no model of the catalogue names family mine; name models"):
        family_of_ones_own(own, models="all", families=["emoji"])
    with pytest.raises(
        UserError, match="'my_model' has no head for the classes of family mine, and there is no reference"
    ):
        family_of_ones_own(own, head="none")


def test_a_dataset_in_distribution_is_evaluated_and_neither_target_nor_part_of_ri(own):
    chosen = Grid(config(targets="all"), with_more_datasets(own, role="in_distribution"))
    assert "mine" in chosen.datasets and "mine" not in chosen.targets and "mine" not in chosen.ood()
    with pytest.raises(UserError, match="'mine' can't be a target: it is what the models were pretrained for"):
        Grid(config(targets=["mine"]), with_more_datasets(own, role="in_distribution"))


def test_a_key_given_twice_in_one_file_is_refused(own):
    (own / "methods.yaml").write_text("a: {}\na: {}\n")
    with pytest.raises(UserError, match=r"methods\.yaml is not valid YAML: the key 'a' is given twice.*line 1"):
        _ = Catalog([CATALOG, own]).methods


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a {settings: *a}", r"methods\.yaml: it holds itself"),
        (
            "a:\n  label: 2020-13-45",
            r"is not valid YAML: this isn't what its form says.*line 2, column 10.*; correct it",
        ),
        ("a: !!bool maybe", "is not valid YAML: this isn't what its form says"),
        ("a: !!map [1]", "is not valid YAML: expected a mapping node"),
        ("[" * 3000, "is not valid YAML: .* nesting depth"),
        ("a: 0x" + "f" * 5000, "a number of thousands of digits"),
        ("- a", r"methods\.yaml: the whole is \['a'\], which is not valid \(it is not of type 'object'\)"),
        ("a: \xe9".encode("latin-1"), "is not valid YAML: 'utf-8' codec can't decode"),
        (None, r"methods\.yaml can't be read \(Is a directory\); correct it or take it away"),
    ],
)
def test_what_is_no_catalogue_file_is_explained(own, text, message):
    path = own / "methods.yaml"
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        _ = Catalog([CATALOG, own]).methods


@pytest.mark.parametrize("name", ["..", "a b", "{x}", "a-b"])
def test_a_familys_name_is_that_of_a_folder_inside_the_project(own, name):
    (own / "families").mkdir()
    shutil.copy(CATALOG / "families/emoji.yaml", own / f"families/{name}.yaml")
    with pytest.raises(
        UserError, match=r"the file's name is the family's, and part of paths; use letters, digits and _"
    ):
        _ = Catalog([CATALOG, own]).families


@pytest.mark.parametrize("name", ["..", ".", "-x", "a/b", "a\n", "", "x" * 101])
def test_a_models_name_is_that_of_a_folder_inside_the_project(own, name):
    models = yaml.safe_load((CATALOG / "models.yaml").read_text())
    (own / "models.yaml").write_text(yaml.safe_dump({name: models["efficientnet_lite0"]}))
    with pytest.raises(UserError, match=r"models\.yaml: '.*is no name that can be used here"):
        _ = Catalog([CATALOG, own]).models


def test_a_published_number_that_is_none_is_named_with_its_line(own):
    (own / "published.csv").write_text("model,dataset,accuracy,source\na,b,1,s\na,c,about 2,s\n")
    with pytest.raises(UserError, match=r"published\.csv line 3: accuracy is 'about 2'; give a number"):
        Grid(config(), Catalog([CATALOG, own])).baselines()


def test_a_dataset_of_a_single_class_is_refused(own):
    """Its only label has no other class to lead over; that must not come to light in the first score."""
    (own / "classes").mkdir()
    (own / "classes/one.csv").write_text("wnid\nn01440764\n")
    catalog = with_more_datasets(own, classes={"file": "one.csv", "format": "wnids"})
    with pytest.raises(UserError, match="mine: 'n01440764' is its only class"):
        catalog.space(catalog.datasets["mine"])
    (own / "classes/one.csv").write_text("wnid\nn01440764\nn02206856\n")
    assert len(Catalog([CATALOG, own]).space(catalog.datasets["mine"]).keys) == 2


def test_a_family_without_datasets_is_explained(own):
    (own / "families").mkdir()
    shutil.copy(CATALOG / "families/emoji.yaml", own / "families/mine.yaml")
    with pytest.raises(UserError, match="no dataset of the catalogue is evaluated in family mine; add one"):
        Grid(config(family="mine", targets="all"), Catalog([CATALOG, own]))


def family_of_ones_own(folder, models="default", families=("mine",), head="published", **changes):
    """A family with one model and one dataset, in a folder of the user."""
    (folder / "families").mkdir(exist_ok=True)
    family = yaml.safe_load((CATALOG / "families/emoji.yaml").read_text())
    defaults = {**family["defaults"], "models": ["my_model"], "targets": ["my_set"]}
    (folder / "families/mine.yaml").write_text(yaml.safe_dump({**family, "defaults": defaults, **changes}))
    datasets = yaml.safe_load((CATALOG / "datasets.yaml").read_text())
    (folder / "datasets.yaml").write_text(yaml.safe_dump({"my_set": {**datasets["noto"], "family": "mine"}}))
    entries = yaml.safe_load((CATALOG / "models.yaml").read_text())
    (folder / "models.yaml").write_text(
        yaml.safe_dump({"my_model": {**entries["efficientnet_lite0"], "families": list(families), "head": head}})
    )
    return Grid(config(family="mine", models=models), Catalog([CATALOG, folder]))


def test_a_family_may_override_settings_of_methods(own):
    chosen = family_of_ones_own(own, method_settings={"lwf": {"temperature": 9}})
    assert list(chosen.models) == ["my_model"] and chosen.targets == ["my_set"]
    entries = Catalog([CATALOG]).methods
    assert chosen.methods["lwf"].settings == {**entries["lwf"].settings, "temperature": 9}
    assert chosen.methods["ft"].settings == entries["ft"].settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method_settings": {"lwff": {}}}, r"families/mine\.yaml, method_settings: unknown method 'lwff'"),
        ({"method_settings": {"lwf": {"temp": 1}}}, r"method_settings, lwf: unknown setting 'temp'"),
        ({"classes": {"file": "none.csv", "format": "wnids"}}, r"the class file classes/none\.csv is in none of the"),
    ],
)
def test_a_bad_family_is_explained(own, changes, message):
    with pytest.raises(UserError, match=message):
        chosen = family_of_ones_own(own, **changes)
        chosen.catalog.class_space("mine")


def test_the_data_readme_names_every_package_version_and_licence():
    lines = (ROOT / "data/README.md").read_text().splitlines()
    for dataset in Catalog([CATALOG]).datasets.values():
        (line,) = [line for line in lines if line.startswith(f"| {dataset.name} |")]
        if "package" in dataset.sources[0]:
            assert f"{dataset.sources[0]['package']} {dataset.sources[0]['version']}" in line
            assert f"{dataset.sources[0]['size'] / 1e6:.1f} MB" in line and dataset.licence in line
        elif dataset.raw == dataset.name:
            assert all(source["file"] in line for source in dataset.sources)
            assert all(f"{source['size'] / 1e9:.1f}" in line for source in dataset.sources if "size" in source)
            assert ("by hand" in line) == (dataset.sources[0]["kind"] == "manual")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": {"kind": "hub", "repo": "a/b", "path": "c.safetensors", "file": "c.safetensors"}},
            "give exactly one",
        ),
        ({"pretrain": None}, "give exactly one of the keys source, pretrain in 'mine'"),
        ({"epochs": None}, "the key 'epochs' is missing in 'mine.pretrain'; add it"),
        ({"augment": True}, "unknown key 'augment' in 'mine.pretrain'; allowed are batch_size, dataset"),
        (
            {"size": 0},
            "'mine.pretrain.size' is 0, which is not valid.*how much of it: 'all', a number of images from 1",
        ),
        ({"lr": 0}, "'mine.pretrain.lr' is 0, which is not valid.*peak learning rate"),
    ],
)
def test_a_bad_pretraining_is_explained(changes, message):
    entry = yaml.safe_load((CATALOG / "models.yaml").read_text())["digits_cnn_all"]
    for key, value in changes.items():
        part = entry if key in ("source", "pretrain") else entry["pretrain"]
        part |= {key: value}
        if value is None:
            del part[key]
    with pytest.raises(UserError, match=f"models.yaml: .*{message}"):
        validated({"mine": entry}, "models", "models.yaml")


def test_a_model_pretrained_here_is_for_its_own_family():
    chosen = grid(family="digits", models=["digits_cnn_50"])
    assert chosen.head("digits_cnn_50") == "pretrained"
    assert [entry.name for entry in chosen.datasets_read()][-1] == "digits" and "digits" not in chosen.datasets
    with pytest.raises(
        UserError, match="'digits_cnn_50' is trained here for family digits; choose other models for family emoji"
    ):
        grid(models=["digits_cnn_50"])

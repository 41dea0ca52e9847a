"""The catalogue's own entries, and how bad ones are refused."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from rib.analyses.effective_robustness.baselines import in_distribution
from rib.base.errors import UserError
from rib.base.params import to_params
from rib.catalog.catalog import Catalog
from rib.schema.config import config_of
from rib.schema.entries import Parts

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "workflow/catalog"


def test_every_entry_is_valid_and_refers_to_what_exists(catalog):
    for dataset in catalog.datasets.values():
        assert dataset.family in catalog.families
        assert catalog.layout_file(dataset.layout).is_file()
        keys = set(catalog.family_label_space(dataset.family).keys)
        assert set(dataset.exclude) <= keys and set(catalog.icons(dataset)) <= keys
    for model in catalog.models.values():
        assert set(model.families) <= set(catalog.families)
    assert not set(catalog.datasets) & set(catalog.models), "both have a folder in data/raw"
    for styled in (catalog.models, catalog.methods):
        looks = [tuple(to_params(entry.style).values()) for entry in styled.values()]
        assert len(set(looks)) == len(looks)


def test_models_with_published_weights_state_the_size_of_their_pretraining_data(catalog):
    """The same name of data means the same number; of others a recipe states it."""
    sizes = {}
    for model in catalog.models.values():
        assert (model.pretraining_images is None) == bool(model.pretrain), model.name
        assert model.stated_pretraining_images, model.name
        if not model.pretrain:
            data = model.pretraining.split(",")[0].removesuffix(" without labels")
            sizes.setdefault(data, set()).add(model.pretraining_images)
    assert {data: len(numbers) for data, numbers in sizes.items()} == dict.fromkeys(sizes, 1)


def test_a_wrong_number_of_pretraining_images_is_refused_with_its_key(with_entries):
    with pytest.raises(UserError, match="models.yaml.*pretraining_images"):
        with_entries(models={"net": {"pretraining_images": 1.5}}).models  # noqa: B018


def test_only_emojis_label_spaces_are_per_dataset_or_have_further_answers(catalog):
    assert [name for name, family in catalog.families.items() if family.classes_per_dataset] == [
        "emoji"
    ]
    spaces = {
        name: catalog.label_space(entry)
        for name, entry in catalog.datasets.items()
        if entry.family != "emoji"
    }
    assert all(not space.also and "also" not in space.to_json() for space in spaces.values())
    known = {
        "imagenet_val": "005ba079307f41b0",
        "imagenet_a": "f34ecdd8bf4b3bba",
        "imagenet_r": "5a3ccf815de0c263",
    }
    known |= {"objectnet": "1752d41cc53197ac"}  # by which results are known
    assert {name: spaces[name].digest for name in known} == known


@pytest.mark.parametrize("own", [False, True])
def test_datasets_that_each_have_their_own_classes_have_none_in_distribution(with_entries, own):
    """Their label spaces are known only once they are prepared, and differ."""
    family = {"classes": {"file": "imagenet", "format": "timm"}, "classes_per_dataset": own}
    sets = {"inside": {"family": "mine", "role": "in_distribution"}, "outside": {"family": "mine"}}
    catalog = with_entries(families={"mine": family}, datasets=sets)
    grid = SimpleNamespace(
        catalog=catalog, datasets={name: catalog.datasets[name] for name in sets}
    )
    assert in_distribution(grid, "outside") == (None if own else "inside")


def test_config_yaml_states_the_defaults_and_comments_every_key():
    text = (ROOT / "config.yaml").read_text()
    assert config_of(yaml.safe_load(text), "config.yaml") == config_of({}, "config.yaml")
    for line in text.splitlines():
        assert not line.strip() or "#" in line, f"no comment: {line}"


def test_the_data_readme_names_every_package_version_and_licence(catalog):
    lines = (ROOT / "data/README.md").read_text().splitlines()
    for dataset in catalog.datasets.values():
        (line,) = [line for line in lines if line.startswith(f"| {dataset.name} |")]
        if dataset.raw in catalog.hub_sources:  # without sources until they are resolved
            for source in catalog.hub_sources[dataset.raw]:
                assert source["repo"] in line
        elif "package" in dataset.archives[0]:
            assert f"{dataset.archives[0]['package']} {dataset.archives[0]['version']}" in line
            assert f"{dataset.archives[0]['size'] / 1e6:.1f} MB" in line and dataset.licence in line
        elif dataset.raw == dataset.name:
            assert all(source["file"] in line for source in dataset.archives)
            assert all(
                f"{source['size'] / 1e9:.1f}" in line
                for source in dataset.archives
                if "size" in source
            )
            assert ("by hand" in line) == (dataset.archives[0]["kind"] == "manual")


def test_the_papers_archives_have_several_addresses_only_under_one_sha256(catalog):
    with_mirrors = []
    for dataset in catalog.datasets_of(catalog.families["imagenet"], "ood").values():
        for source in dataset.archives:
            if source["kind"] == "mirrors" and dataset.raw == dataset.name:
                with_mirrors.append(dataset.name)
                assert source["digest"].startswith("sha256:") and len(source["mirrors"]) > 1
    assert with_mirrors == ["imagenet_v2", "imagenet_sketch"]


def test_a_folder_of_the_user_adds_methods_and_algorithms(with_entries, tmp_path):
    (tmp_path / "methods").mkdir()
    shutil.copy(CATALOG.parent / "lib/rib/methods/lwf.py", tmp_path / "methods/special.py")
    settings = {"lr": "1e-3", "temperature": 2, "weight": 1, "distil": "all"}
    catalog = with_entries(methods={"mine": {"algorithm": "special", "settings": settings}})
    assert catalog.algorithm_file("special") == tmp_path / "methods/special.py"
    assert list(catalog.methods) == [*Catalog([CATALOG]).methods, "mine"]
    assert catalog.methods["mine"].settings["lr"] == 0.001, "a number that YAML reads as text"


def test_a_module_of_the_user_does_not_replace_the_librarys(with_entries, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/replay.py").write_text("")
    with pytest.raises(UserError, match=f"^{tmp_path}/methods/replay.py"):
        _ = with_entries(methods={"mine": {}}).methods


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"algorithm": "none_such"}, "'none_such'.*ewc, external, .*ft"),
        (
            {"recipes": {"paper": {"batchnorm": "x"}}},
            "methods.yaml, mine, recipes, paper: .*'batchnorm'.*'batch_norm'",
        ),
        ({"recipes": {"papers": {}}}, "methods.yaml, mine: .*'papers'.*'paper'"),
        (
            {"recipes": {"paper": {"recipe": "paper"}}},
            "methods.yaml, mine, recipes, paper: .*'recipe'",
        ),
        ({"settings": {"recipe": 3}}, "methods.yaml, mine: .*'recipe' is 3"),
        (
            {"form": "coefficients", "parents": ["ft"]},
            "methods.yaml, mine: recipes is only for",
        ),
        ({"fewest_parents": 2}, "methods.yaml, mine: fewest_parents is only for merges"),
        ({"starts_from": "none_such"}, "methods.yaml, mine: .*'none_such'"),
        ({"starts_from": "wise_ft"}, "methods.yaml, mine: .*'wise_ft'"),
        ({"starts_from": "lp_ft"}, "methods.yaml, mine: .*'lp_ft'"),
        ({"parents": ["ft"]}, "methods.yaml, mine: parents"),
        (
            {"form": "coefficients", "starts_from": "ft"},
            "methods.yaml, mine: starts_from",
        ),
        (
            {"form": "coefficients", "recipes": None, "parents": ["soup"]},
            "methods.yaml, mine: .*'soup'",
        ),
        ({"style": {"colour": "red", "marker": "x"}}, "methods.yaml: 'mine.style.colour'"),
        ({"stored_outputs": {"large_on_host": True}}, "'bytes_per_image' .* 'mine.stored_outputs'"),
        ({"fisher_information": True}, "methods.yaml: .*fisher and fisher_images .*'mine'"),
        ({"settings": {"fisher_images": 1}}, "methods.yaml: .*fisher_information.* 'mine'"),
        (
            {"form": "merge", "recipes": None, "parents": ["ft"], "padding_prompt": True},
            "methods.yaml, mine: padding_prompt",
        ),
    ],
)
def test_a_bad_method_is_refused_with_its_key(with_entries, changes, place):
    with pytest.raises(UserError, match=place):
        _ = with_entries(methods={"mine": changes}).methods


NPM = {"kind": "npm", "package": "p", "version": "1", "file": "x.tgz", "digest": "sha512-x"}
FOLDERS = [{"kind": "folder", "path": "a"}, {"kind": "folder", "path": "b"}]
HUB = {"kind": "hub", "repo": "a/b", "path": "x.safetensors", "file": "x.safetensors"}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"layout": "iconifi"}, "'iconifi'.*'iconify'"),
        (
            {"settings": {"photos": {"layout": "idx", "settings": {0: 0.1}}}},
            "datasets.yaml, mine: the setting 'photos' is",
        ),
        ({"settings": {"photos": "iconify"}}, "datasets.yaml, mine, photos: give the layout"),
        ({"settings": {"photos": {"layout": "idxx"}}}, "'idxx'.*'idx'"),
        (
            {"settings": {"photos": {"layout": "corruptions_of", "settings": {"photos": {}}}}},
            "datasets.yaml, mine, photos: 'corruptions_of' takes its images from another layout",
        ),
        ({"icons_file": "../../secret.csv"}, "datasets.yaml: 'mine.icons_file'"),
        ({"source": {**NPM, "package": "-g"}}, "datasets.yaml: 'mine.source.package'"),
        ({"source": {**NPM, "kind": "pypi"}}, "datasets.yaml: 'mine.source.file'"),
        ({"source": {**HUB, "path": "../x.safetensors"}}, "datasets.yaml: 'mine.source.path'"),
        (
            {"source": {"kind": "folder", "path": "~no_such_user/x"}},
            "datasets.yaml, mine: .*~no_such_user",
        ),
        ({"source": None, "sources": FOLDERS}, "datasets.yaml, mine: .*mine.tar"),
        ({"source": None, "archives_of": "notto"}, "datasets.yaml, mine, archives_of: .*'noto'"),
        # which uses the archives of noto
        (
            {"source": None, "archives_of": "noto_corrupted"},
            "datasets.yaml, mine, archives_of: 'noto_corrupted' has archives_of itself",
        ),
        ({"source": None, "archives_of": "mine"}, "mine, archives_of: 'mine' has archives_of"),
    ],
)
def test_a_bad_dataset_is_refused_with_its_key(with_entries, changes, place):
    with pytest.raises(UserError, match=place):
        _ = with_entries(datasets={"mine": changes}).sources


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("datasets", ["none", "efficientnet_lite0", "group_emoji", 7]),
        ("models", ["..", "-x", "a/b", "a\n", "", "x" * 101]),
        ("methods", ["pretrained", "ft"]),
        ("families", ["a-b", "emoji"]),
    ],
)
def test_a_name_that_stands_for_something_else_or_is_no_part_of_a_path_is_refused(
    with_entries, kind, names
):
    for name in names:
        with pytest.raises(UserError, match=kind.removesuffix("s")):
            catalog = with_entries(**{kind: {name: {}}})
            _ = getattr(catalog, kind), catalog.sources


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: {}\na: {}\n", "'a'.*line 2"),
        ("- a", ""),
        ("a: \xe9".encode("latin-1"), ""),
        (None, ""),
    ],
)
def test_a_file_that_is_no_catalogue_is_named(tmp_path, text, place):
    path = tmp_path / "methods.yaml"
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=f"^{path}.*{place}"):
        _ = Catalog([CATALOG, tmp_path]).methods


def test_a_table_that_lacks_a_number_is_named_with_its_line(tmp_path):
    (tmp_path / "published.csv").write_text(
        "model,dataset,accuracy,source\na,b,1,s\na,c,about 2,s\n"
    )
    with pytest.raises(UserError, match="published.csv line 3: accuracy"):
        Catalog([CATALOG, tmp_path]).table("published.csv", ("model", "accuracy"), ["accuracy"])


def test_a_dataset_of_a_single_class_is_refused(with_entries, tmp_path):
    """Its only label has no other class to lead over.

    That must not come to light in the first score.
    """
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/one.csv").write_text("wnid\nn01440764\n")
    catalog = with_entries(datasets={"mine": {"classes": {"file": "one.csv", "format": "wnids"}}})
    with pytest.raises(UserError, match="datasets.yaml, mine: 'n01440764'"):
        catalog.label_space(catalog.datasets["mine"])


MISSING_CLASSES = {"classes": {"file": "none.csv", "format": "own"}}


def test_a_class_file_that_is_missing_is_named_with_the_family_that_wants_it(with_entries):
    catalog = with_entries(families={"mine": MISSING_CLASSES})
    with pytest.raises(UserError, match=r"^families/mine\.yaml: .*classes/none\.csv"):
        catalog.family_label_space("mine")


@pytest.mark.parametrize("keys", [MISSING_CLASSES, {"icons_file": "none.csv"}], ids=str)
def test_a_class_file_that_is_missing_is_named_with_the_dataset_that_wants_it(with_entries, keys):
    catalog = with_entries(datasets={"mine": keys})
    with pytest.raises(UserError, match=r"^datasets\.yaml, mine: .*classes/none\.csv"):
        read = catalog.icons if "icons_file" in keys else catalog.label_space
        read(catalog.datasets["mine"])


@pytest.mark.parametrize(
    ("keys", "expected"), [({}, False), ({"publishable": True}, True)], ids=["unsaid", "said"]
)
def test_images_of_a_users_dataset_are_shown_only_if_its_entry_says_so(
    with_entries, keys, expected
):
    catalog = with_entries(datasets={"mine": keys})
    assert catalog.datasets["mine"].publishable is expected


def test_images_of_the_projects_datasets_are_shown_unless_their_entry_says_otherwise(catalog):
    assert catalog.datasets["noto"].publishable
    assert catalog.datasets["objectnet"].publishable is False


PRETRAIN = {"dataset": "fashion_train", "test": "fashion", "batch_size": 8, "lr": 1}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"source": None}, "source, pretrain.*'mine'"),
        ({"source": None, "pretrain": PRETRAIN}, "epochs, steps.*'mine.pretrain'"),
        (
            {"source": None, "pretrain": {**PRETRAIN, "epochs": 1, "steps": 1}},
            "epochs, steps.*'mine.pretrain'",
        ),
        (
            {"source": None, "pretrain": {**PRETRAIN, "epochs": 1, "shift": 33}},
            "'mine.pretrain.shift' is 33",
        ),
        (
            {"source": None, "pretrain": {**PRETRAIN, "epochs": 1, "augment": True}},
            "'augment' in 'mine.pretrain'",
        ),
    ],
)
def test_a_bad_pretraining_is_refused_with_its_key(with_entries, changes, place):
    with pytest.raises(UserError, match=f"models.yaml: .*{place}"):
        _ = with_entries(models={"mine": changes}).models


def test_no_two_sets_of_the_fashion_family_count_the_same_photos(catalog):
    """Ranges of each class's photos; test_fashion.py compares the source ids of the real files."""
    counts = {"train": [], "t10k": []}
    for dataset in catalog.datasets.values():
        if dataset.family == "fashion":
            settings = dataset.settings.get("photos", dataset.__dict__)["settings"]
            assert settings["collection"] == "fashion"
            counts[settings["part"]] += range(settings["first"], settings["last"])
    assert len(set(counts["train"])) == len(counts["train"]) <= 6000
    assert len(set(counts["t10k"])) == len(counts["t10k"]) <= 1000


def test_the_filtered_set_of_the_fashion_family_is_listed_and_never_a_target(catalog):
    dataset = catalog.datasets["fashion_adversarial"]
    listed = catalog.only(dataset)
    assert len(set(listed)) == len(listed) == dataset.images
    assert dataset.never_target and catalog.only(catalog.datasets["fashion"]) is None


def test_a_list_of_images_that_is_missing_or_empty_is_refused(with_entries, tmp_path):
    catalog = with_entries(datasets={"mine": {"only_file": "mine.csv"}})
    with pytest.raises(UserError, match="datasets.yaml, mine: mine.csv"):
        catalog.only(catalog.datasets["mine"])
    (tmp_path / "mine.csv").write_text("image_id\n")
    with pytest.raises(UserError, match="datasets.yaml, mine: mine.csv"):
        catalog.only(catalog.datasets["mine"])
    (tmp_path / "mine.csv").write_text("image_id\nb\na\n")
    assert catalog.only(catalog.datasets["mine"]) == ("b", "a")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"recipe": "adam"}, "mine, pretrain.recipe: .*'adam'.*'adamw'"),
        ({"recipe": "adamw", "momentum": 0.5}, "mine: pretrain.momentum .*'adamw'"),
        ({"recipe": "adamw", "weight_decay": 0.0}, "mine: pretrain.weight_decay .*'adamw'"),
        ({"augmentation": "broader"}, "mine, pretrain.augmentation: .*'broader'.*'broad'"),
        ({"recipe": "flips", "augmentation": "broad"}, "mine: pretrain.augmentation .*'flips'"),
    ],
)
def test_a_bad_recipe_or_augmentation_of_a_pretraining_is_refused_with_its_key(
    with_entries, changes, place
):
    pretrain = {**PRETRAIN, "steps": 10, **changes}
    catalog = with_entries(
        models={"mine": {"source": None, "pretrain": pretrain}},
        recipes={"flips": {"augmentation": ["flip"]}},
    )
    with pytest.raises(UserError, match=f"models.yaml, {place}"):
        _ = catalog.models


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"most": 10}, ", mine: most is 10; give 9, .*transforms"),
        ({"transforms": {}}, ": .*'mine.transforms'"),
        ({"transforms": {"invert": {}}}, ": 'invert' in 'mine.transforms'"),
        ({"transforms": {"RandomInvert": 1.0}}, ": 'mine.transforms.RandomInvert' is 1.0"),
    ],
)
def test_a_bad_augmentation_is_refused_with_its_key(with_entries, changes, place):
    with pytest.raises(UserError, match=f"augmentations.yaml{place}"):
        _ = with_entries(augmentations={"mine": changes}).augmentations


def test_the_pages_pretrained_network_is_taken(tmp_path):
    """The entry of docs/adding.md."""
    page = (ROOT / "docs/adding.md").read_text()
    (network,) = re.findall(r"^```yaml\n(my_cnn_1k:.*?)^```$", page, re.S | re.M)
    (tmp_path / "models.yaml").write_text(network)
    catalog = Catalog([CATALOG, tmp_path])
    assert catalog.pretraining(catalog.models["my_cnn_1k"])["steps"] == 2000


def in_parts(with_entries, **changes):
    """A dataset of two parts, with keys changed."""
    entry = {
        "layout": "corruptions",
        "settings": {"corruptions": ["shot_noise", "fog", "snow"], "severities": [1]},
        "evaluation_group": None,
        "parts": {
            "column": "corruption",
            "levels": {"noise": ["shot_noise"], "weather": ["fog", "snow"]},
        },
        **changes,
    }
    return with_entries(datasets={"c": entry}).datasets["c"]


def test_a_dataset_may_be_evaluated_in_parts(with_entries):
    dataset = in_parts(with_entries)
    assert dataset.parts == Parts(
        column="corruption", levels={"noise": ("shot_noise",), "weather": ("fog", "snow")}
    )
    assert in_parts(with_entries, parts=None).parts is None


@pytest.mark.parametrize(
    "changes, reason",
    [
        (
            {"noise": ["shot_noise", "fog"], "weather": ["fog", "snow"]},
            "parts: .*'fog' .*'noise' .*'weather'",
        ),
        (
            {"noise": ["shot_noise"], "weather": ["snow", "fog", "frost"]},
            "parts: 'frost' of 'weather' .*settings.corruptions",
        ),
        (
            {"noise": ["shot_noise"], "weather": ["snow"]},
            "parts: 'fog' of settings.corruptions",
        ),
        ({"all": ["shot_noise", "fog", "snow"]}, "parts.levels"),
        ({"noise": [], "weather": ["shot_noise", "fog", "snow"]}, "parts.levels.noise"),
    ],
)
def test_parts_that_overlap_or_leave_something_out_are_refused(with_entries, changes, reason):
    with pytest.raises(UserError, match=f"datasets.yaml.*{reason}"):
        in_parts(with_entries, parts={"column": "corruption", "levels": changes})


def test_levels_that_no_setting_lists_are_checked_when_the_dataset_is_prepared(with_entries):
    """By rib.data.parts."""
    levels = {"light": [1, 2], "dark": ["any"]}
    dataset = in_parts(with_entries, parts={"column": "brightness", "levels": levels})
    assert dataset.parts.levels == {"light": (1, 2), "dark": ("any",)}


def test_a_dataset_in_parts_is_in_no_group_with_others(with_entries):
    with pytest.raises(UserError, match="c, parts: .* remove its evaluation_group"):
        in_parts(with_entries, evaluation_group="emoji")

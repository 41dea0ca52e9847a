"""Whatever stands in config, catalogue and class files is taken or refused with one sentence.

No name in them leads out of the project's folders.
"""

import contextlib
import copy
import dataclasses
import itertools
import json
import posixpath
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rib.base.params import to_params
from rib.catalog import catalog as catalogue
from rib.catalog.catalog import Catalog
from rib.catalog.label_space import (
    LabelSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_wnid_list,
)
from rib.data.folders import files_in, listing, pack
from rib.grid.evaluation_groups import evaluation_groups
from rib.grid.grid import Grid, resolve_grid
from rib.grid.grid_as_config import resolved as resolved_config
from rib.jobs import code_digest
from rib.schema.augmentation_entries import AugmentationEntry
from rib.schema.checking import checked, checked_entries
from rib.schema.config import Config, config_of
from rib.schema.entries import Dataset, Family, Method, Model, Recipe
from rib.schema.yaml_files import read_yaml
from rib.statistics.conditions import conditions_of
from tiny.fuzz import NAMES, ODD, POINTING, VALUES, fuzzed, mutated, outcome

CATALOG = Path(__file__).parents[2] / "workflow/catalog"
# A part of a path that no file system, shell, format string or program's options reads as anything
# else.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
ENTRIES_OF_FILE = {
    "datasets.yaml": Dataset,
    "models.yaml": Model,
    "methods.yaml": Method,
    "recipes.yaml": Recipe,
    "augmentations.yaml": AugmentationEntry,
}
# Pieces that entries share, and a catalogue with every kind of source and of method, by file.
OWN = yaml.safe_load("""
parts:
  style: &style {colour: "#000000", marker: x}
  folder: &folder {kind: folder, path: images}
  file: &file
    {kind: file, path: a/b.zip, file: b.zip, digest: &md5 md5:00000000000000000000000000000000}
  http: &http {kind: http, urls: ["https://example.org/a.tar"], file: a.tar, digest: *md5, size: 9}
  mirrors: &mirrors
    {kind: mirrors, file: a.idx, digest: *md5, size: 9, mirrors: [
      {kind: http, url: "https://example.org/a.gz", compression: gzip},
      {kind: apt, package: pp, member: usr/share/p/a.gz, compression: gzip},
      {kind: hub, repo: o/r, repo_type: dataset, revision: main, path: d/a.idx}]}
  wheel: &wheel {kind: pypi, package: p, version: "1.0", file: p-1.0-py3-none-any.whl, digest: *md5}
  npm: &npm {kind: npm, package: "@s/p", version: "1.0", file: s-p-1.0.tgz, digest: sha512-x}
  manual: &manual
    {kind: manual, page: "https://example.org", terms: None., file: m.zip, digest: *md5}
  hub: &hub {kind: hub, repo: o/r, path: d/m.safetensors, file: net.safetensors, revision: main}
  set: &set {family: own, label: Set, layout: class_folders, licence: none, origin: tests}
  model: &model
    {families: [own], label: Net, type: cnn, pretraining: none, library: timm,
     architecture: test_resnet, licence: n}
  seen: &seen
    {input_size: 64, crop_pct: 0.9, interpolation: bicubic,
     mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
  method: &method {source: tests, style: *style}
families/own.yaml:
  title: Own
  description: sets of tests
  classes: {file: own.csv, format: own}
  crop_pct: 1.0
  example_target: red
  reference: memory
  one_image_per_class: false
  classes_per_dataset: false
  method_settings: {ft: {lr: 0.1}, mine: {rank: [2, 4]}}
  recipes: {mine: {ft: {lr: [0.1, 0.2], steps: 5}}, paper: {lwf: {epochs: 7}}}
  defaults:
    {models: [net, made], methods: [ft, mine, blend], targets: [red], image_size: 64, epochs: 2,
     batch_size: 8, recipes: [paper]}
recipes.yaml:
  mine:
    label: Own
    optimizer: lion
    weight_decay: 0.1
    decay_norm_and_bias: false
    layer_decay: 0.9
    clip_norm: 1.0
    label_smoothing: 0.1
    augmentation: [flip, crop, randaugment]
    warmup_steps: 5
    source: tests
augmentations.yaml:
  some:
    label: Some
    most: 1
    transforms: {RandomInvert: {p: 1.0}, GaussianBlur: {kernel_size: 3, sigma: [0.1, 2]}}
    source: tests
datasets.yaml:
  red:
    {<<: *set, source: *folder, source_group: g, evaluation_group: own, images: 9,
     publishable: false}
  green:
    <<: *set
    sources: [*file, *wheel]
    classes: {file: some.csv, format: own}
    tuning: {accept: a, terms: "No."}
  again: {<<: *set, archives_of: red, variant_of: red, exclude: {a/1.jpg: blurred}}
  drawn:
    {<<: *set, source: *npm, layout: iconify, settings: {margin: 0.06}, icons_file: icons.csv,
     optional: true}
  noisy:
    <<: *set
    sources: [*http, *mirrors, *manual]
    layout: corruptions
    settings: {corruptions: [fog], severities: [1]}
    storage: encoded
  odd:
    {<<: *set, source: *manual, layout: objectnet, settings: {border: 2, also: {x: a}},
     about_images: 7}
  font:
    {<<: *set, source: *wheel, layout: codepoint_images, settings: {margin: 0.06},
     adversarially_filtered: true}
  memory: {<<: *set, source: *folder, role: reference}
  test: {<<: *set, source: *folder, role: in_distribution}
models.yaml:
  net:
    {<<: *model, preprocessing: *seen, style: *style, source: *hub, head: none, parameters: 9,
     baseline: true}
  made:
    <<: *model
    preprocessing: *seen
    style: *style
    pretrain:
      {dataset: memory, size: 0.5, test: test, epochs: 1, batch_size: 8, lr: 0.1, seed: 3,
       augmentation: some}
  file:
    <<: *model
    preprocessing: *seen
    style: *style
    source: *file
    weights: {member: a/b.pth, keys: by_order}
    type: vit
methods.yaml:
  mine:
    <<: *method
    label: mine
    algorithm: lora
    settings: {lr: [0.1, 0.2], rank: 8, alpha: 8, also: none, steps: 9}
    recipes: {paper: {epochs: 3}, mine: {lr: 0.3}}
    starts_from: linear_probe
    types: [vit, cnn]
  blend: {<<: *method, label: blend, algorithm: soup, form: coefficients, parents: [ft, lwf]}
  deep: {<<: *method, label: deep, algorithm: layered, settings: {layers: [0, 1], lr: 0.1}}
  only: {<<: *method, label: only, algorithm: ft, settings: {recipe: mine, lr: 0.1, epochs: [1, 2]}}
""")
del OWN["parts"]  # which the entries have in them
# Further files of this catalogue.
BESIDE = {
    "classes/own.csv": "key,name\na,A\nb,B\nc,C\n",
    "classes/some.csv": "key,name\nb,B\nc,C\n",
    "classes/icons.csv": "codepoint,icon\na,ant\n",
    "methods/layered.py": "",
}
CONFIG = {
    "family": "own",
    "accept_terms": ["a"],
    "models": "all",
    "methods": "all",
    "targets": "all",
    "datasets": "all",
}
# Names that stand for something, where mutated ones are refused at once.
OWN_NAMES = [
    *("own", "red", "green", "memory", "test", "net", "made", "file", "mine", "blend"),
    "own.csv",
]
KNOWN = st.sampled_from([*OWN_NAMES, "ft", "noto", "iconify", "lora"])
ENTRIES = VALUES | NAMES | KNOWN | st.lists(KNOWN, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def parsed_once():
    """The project's own catalogue, parsed once for all examples."""
    parse = catalogue.read_yaml
    parsed_files = {}

    def parse_once(path):
        if not path.is_relative_to(CATALOG):
            return parse(path)
        if path not in parsed_files:
            parsed_files[path] = parse(path)
        return dict(parsed_files[path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "read_yaml", parse_once)
        yield


def write_file(path, content):
    """Write a tree as YAML, a text or bytes; for None make a folder of that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_bytes(content.encode())
    else:
        path.write_text(yaml.safe_dump(content), encoding="utf-8")


@contextlib.contextmanager
def folder_of(files):
    """A folder with files of these contents by name, see `write_file`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            write_file(Path(folder, name), content)
        yield Path(folder)


def resolved(config, folders):
    """The grid of a config, after all that is read before a run's first job.

    It is read as workflow/rules/common.smk does. What jobs would write is in its folders, runs have
    names of their own, and what is recorded is JSON.

    Args:
        folders: of the catalogue.
    """
    checked_config = config_of(config, "config.yaml")
    catalog = Catalog(folders)
    grid = resolve_grid(checked_config, catalog)
    for entry in grid.datasets_read():
        catalog.label_space(entry)
        catalog.icons(entry)
    for method in grid.methods.values():
        code_digest.digest(catalog.algorithm_file(method.algorithm))
    assert_paths_are_in_their_folders(grid)
    assert_runs_have_names_of_their_own(grid)
    entries = (*grid.datasets_read(), *grid.models.values(), *grid.methods.values())
    recorded = [to_params(entry) for entry in entries]
    json.dumps([recorded, resolved_config(grid), conditions_of(grid)], allow_nan=False)
    return grid


def assert_runs_have_names_of_their_own(grid):
    """Assert that no two runs of a grid are equal or write into one folder."""
    runs = grid.runs()
    names = {str(run) for run in runs}
    assert len(set(runs)) == len(runs)
    assert len(names) == len(runs)


def assert_paths_are_in_their_folders(grid):
    """Assert that jobs of a grid write into their folders only, to files with plain names."""
    paths_by_folder = written_paths(grid)
    assert all(paths_by_folder.values())
    for folder, paths in paths_by_folder.items():
        for path in paths:
            assert posixpath.normpath(path) == path, path
            assert path.startswith(folder), path
            for name in path.removeprefix(folder).split("/"):
                assert PLAIN.fullmatch(name), path


def written_paths(grid):
    """Where a grid's jobs write (workflow/rules), by the folder in which the paths are to be."""
    family = grid.family.name
    protocol = grid.config["protocol"]
    geometries = [grid.geometry(name).key for name in grid.models]
    prepared = [entry.name for entry in grid.datasets_read()]
    prepared += [f"group_{name}" for name in evaluation_groups(grid)]
    assert len(set(prepared)) == len(prepared)
    raw_paths = []
    partial_paths = []
    for dataset, entry in grid.catalog.sources.items():
        for source in entry.archives:
            raw_paths.append(f"data/raw/{dataset}/{source['file']}")
            partial_paths.append(f"work/partial/{dataset}-{source['file']}")
    result_paths = [
        f"results/{family}/prepare/{name}/{key}"
        for name, key in itertools.product(prepared, geometries)
    ]
    result_paths += [f"results/{family}/models/{name}" for name in grid.models]
    result_paths += [f"results/{family}/{protocol}/finetune/{run}" for run in grid.runs()]
    return {
        "data/raw/": raw_paths,
        "work/partial/": partial_paths,
        "results/": result_paths,
        "reports/": [f"reports/{family}"],
        "logs/": [f"logs/{family}"],
    }


@st.composite
def mutated_configs(draw):
    """Configs of a family of the project, of which a value or two are something else."""
    family = draw(st.sampled_from(["emoji", "fashion", "imagenet"]))
    defaults = config_of({}, "defaults")
    values = VALUES | st.lists(NAMES, max_size=3)
    return draw(mutated({**defaults, "family": family}, values))


@pytest.mark.thorough
@fuzzed(150)
@given(mutated_configs())
def test_any_config_is_taken_or_refused(config):
    result = outcome(lambda: resolved(config, [CATALOG]))
    assert isinstance(result, Grid) or "config" in result or "families/" in result, result


NUMBERS_OF_SETTINGS = st.sampled_from([0.1, 1, "1e-3", "all", 10**400, -1]) | VALUES
SETTINGS_OF_A_METHOD = st.dictionaries(
    st.sampled_from(["lr", "rank", "weight", "distil", "steps", "epochs", "recipe"]),
    NUMBERS_OF_SETTINGS | st.lists(NUMBERS_OF_SETTINGS, max_size=3),
    max_size=2,
)
SIZES = st.just("all") | st.integers(1) | st.floats(0.0001, 1, exclude_max=True)
OTHER_CHOICES = {
    "reference": st.sampled_from(["none", "default", "fashion_train", "imagenet_train"]),
    "protocol": st.sampled_from(["paper", "held_out"]),
    "accept_terms": st.just("objectnet_tuning"),
    "recipes": st.sampled_from(["all", "default", "adamw"]) | st.lists(NAMES, max_size=2),
    "training": st.fixed_dictionaries(
        {}, optional={"epochs": st.integers(0), "steps": st.integers(0)}
    ),
    "method_settings": st.dictionaries(
        st.sampled_from(["ft", "lora", "lwf", "wise_ft_curve"]), SETTINGS_OF_A_METHOD, max_size=2
    ),
    "train_subset": st.lists(SIZES, min_size=1, max_size=3, unique=True),
    "seeds": st.lists(st.integers(0, (1 << 31) - 1), min_size=1, max_size=3, unique=True),
    "image_size": st.sampled_from(["native", 32, 1024, "33"]),
}


def some_of(names):
    """All of some names, a family's choice of them, or a few."""
    few_names = st.lists(st.sampled_from(names), min_size=1, max_size=4)
    return st.sampled_from(["all", "default"]) | few_names


def budgets(datasets):
    """The most images of a dataset: of all, or of one or two by name."""
    limit = st.sampled_from(["all", 1, 500, 0.1, 1.0, "0.5"])
    name = st.sampled_from(["default", *datasets, "noto"])
    limit_by_dataset = st.dictionaries(name, limit, min_size=1, max_size=2)
    return st.fixed_dictionaries({"max_images_per_dataset": limit | limit_by_dataset})


@st.composite
def choices(draw):
    """A config of known names, most of them of one family."""
    catalog = Catalog([CATALOG])
    family = draw(st.sampled_from(sorted(catalog.families)))
    datasets = [name for name, entry in catalog.datasets.items() if entry.family == family]
    models = [name for name, entry in catalog.models.items() if family in entry.families]
    strategies = {
        "models": some_of(models),
        "methods": some_of(list(catalog.methods)),
        "targets": some_of(datasets),
        "datasets": some_of(datasets),
        "budget": budgets(datasets),
        **OTHER_CHOICES,
    }
    chosen = draw(st.fixed_dictionaries({}, optional=strategies))
    return {"family": family, **chosen}


@pytest.mark.thorough
@fuzzed(120)
@given(choices())
def test_any_choice_of_what_there_is_is_taken_or_refused(config):
    outcome(lambda: resolved(config, [CATALOG]))


@contextlib.contextmanager
def folder_of_catalogue(own):
    """A folder with a catalogue: the files of `own`, and those beside them."""
    with folder_of({**own, **BESIDE}) as folder:
        yield folder


@pytest.mark.thorough
@fuzzed(110)
@given(mutated(OWN, ENTRIES))
def test_any_catalogue_is_taken_or_refused(own):
    files_of_own_names = {name: tree for name, tree in own.items() if name in OWN}
    with folder_of_catalogue(files_of_own_names) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


KEYS_OF_NAMES = [
    ("families/own.yaml", "classes", "file"),
    ("datasets.yaml", "red", "family"),
    ("datasets.yaml", "red", "evaluation_group"),
    ("datasets.yaml", "red", "source_group"),
    ("datasets.yaml", "red", "variant_of"),
    ("datasets.yaml", "red", "icons_file"),
    ("datasets.yaml", "red", "layout"),
    ("datasets.yaml", "red", "source", "file"),
    ("datasets.yaml", "red", "source", "path"),
    ("datasets.yaml", "again", "archives_of"),
    ("datasets.yaml", "green", "classes", "file"),
    ("models.yaml", "net", "architecture"),
    ("models.yaml", "net", "source", "repo"),
    ("models.yaml", "net", "source", "path"),
    ("models.yaml", "net", "source", "file"),
    ("models.yaml", "net", "source", "revision"),
    ("models.yaml", "file", "weights", "member"),
    ("methods.yaml", "mine", "algorithm"),
    ("methods.yaml", "mine", "settings", "also"),
    ("methods.yaml", "mine", "starts_from"),
    ("families/own.yaml", "defaults", "recipes", 0),
]


@pytest.mark.thorough
@fuzzed(100)
@given(st.sampled_from(KEYS_OF_NAMES), NAMES | st.sampled_from(POINTING + ODD))
def test_no_value_leads_out_of_the_projects_folders(keys, name):
    # given
    own = copy.deepcopy(OWN)
    *outer_keys, last_key = keys
    entry = own
    for key in outer_keys:
        entry = entry[key]
    entry[last_key] = name
    # then
    with folder_of_catalogue(own) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


ENTRY_NAMES = NAMES | st.from_regex(r"[A-Za-z0-9_.-]{1,4}\n?")


@pytest.mark.thorough
@fuzzed(64)
@given(st.sampled_from(["datasets", "models", "methods", "recipes", "augmentations"]), ENTRY_NAMES)
def test_no_name_of_an_entry_leads_out_of_the_projects_folders(kind, name):
    # given
    entries = OWN[f"{kind}.yaml"]
    first_entry, *_ = entries.values()
    own = {**OWN, f"{kind}.yaml": {name: first_entry, **entries}}
    # when
    with folder_of_catalogue(own) as folder:
        result = outcome(lambda: resolved(CONFIG, [CATALOG, folder]))
    # then
    assert PLAIN.fullmatch(name) or isinstance(result, str), name


@pytest.mark.parametrize("name", ["x", "A_1"])
def test_plain_names_are_taken(name):
    """What the tests here change is valid before."""
    # given
    models = OWN["models.yaml"]
    own = {
        **OWN,
        f"families/{name}.yaml": OWN["families/own.yaml"],
        "models.yaml": {name: models["net"], **models},
    }
    # when
    with folder_of_catalogue(own) as folder:
        grid = outcome(lambda: resolved(CONFIG, [CATALOG, folder]))
        # then
        assert isinstance(grid, Grid), grid
        assert name in grid.models
        assert name in grid.catalog.families
        assert "mine-lr0.2-rank4" in grid.methods


TOKENS = [
    *("!!int ''", "!!bool x", "!!timestamp x", "!!map x", "!!set {a}", "!!python/name:os.system"),
    *("2020-13-45", "*none", "? [1]: 2", "<<: 3", "- a\n- b", "\t", "---", "%YAML 9", "|", "'"),
    *("[" * 2000, "a: {a: 1, a: 2}", "1: 2", "~: 1", "true: 1", "\x00", "!!binary '\xe9'"),
    *("1e999", ".nan", "{}", "[]", "\n", ": ", ", "),
]


@dataclasses.dataclass(frozen=True)
class TextChange:
    """Some characters of a text, which are replaced."""

    start: float  # 0 to 1, as a share of the text
    length: int
    replacement: str

    def of(self, text):
        """The text with this change."""
        start = int(self.start * len(text))
        return text[:start] + self.replacement + text[start + self.length :]


TEXT_CHANGES = st.builds(
    TextChange,
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    replacement=st.sampled_from(TOKENS) | st.text(max_size=3),
)


def read_file(file, path):
    """What a YAML file at a path holds, which is for the file of some name."""
    content = read_yaml(path)
    if file == "config.yaml":
        return checked(Config, content, str(path))
    if file.startswith("families/"):
        return checked(Family, content, str(path), "own")
    return checked_entries(ENTRIES_OF_FILE[file], content, str(path))


@pytest.mark.thorough
@fuzzed(150)
@given(
    st.sampled_from(sorted(OWN)),
    st.lists(TEXT_CHANGES, max_size=3),
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "cp500"]),
    st.binary(max_size=3),
)
def test_any_yaml_text_is_taken_or_refused_with_its_file(file, changes, encoding, tail):
    # given
    text = yaml.safe_dump(OWN[file])
    for change in changes:
        text = change.of(text)
    content = text.encode(encoding, "replace") + tail
    # when
    with folder_of({"x.yaml": content}) as folder:
        path = folder / "x.yaml"
        result = outcome(lambda: read_file(file, path))
    # then
    assert not isinstance(result, str) or str(path) in result, result


PATHS_IN_A_CATALOGUE = [
    *OWN,
    *BESIDE,
    *("families", "classes", "methods"),
    *("methods/new.py", "layouts/new.py", "methods/y z.py"),
]


@pytest.mark.thorough
@fuzzed(60)
@given(
    st.sampled_from(PATHS_IN_A_CATALOGUE),
    st.none() | st.binary(max_size=20) | NAMES.map(lambda name: name.encode("utf-8", "replace")),
)
def test_any_file_or_folder_of_a_catalogue_is_taken_or_refused(name, content):
    # given
    files = {}
    for path, usual_content in {**OWN, **BESIDE}.items():
        is_below = path.startswith(f"{name}/")
        if not is_below:
            files[path] = usual_content
    files[name] = content
    # then
    with folder_of(files) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


COLUMNS_BY_READER = {
    read_class_map: ("emoji", "codepoint", "wnids", "also", "reason"),
    read_wnid_list: ("wnid",),
    read_index_map: ("key", "indices"),
    read_own_classes: ("key", "name"),
}
WNIDS = imagenet_wnids()[:4]
TWO_WNIDS = " ".join(WNIDS[:2])
MEANT_CELLS = [*WNIDS, TWO_WNIDS, "0", "0 1", "999", "1000", "-1", "²", "٣", "a", "b"]
CELLS = st.sampled_from(MEANT_CELLS) | NAMES
ODD_TEXTS = ['"', ",", "\n", "\r", "\r\n", "\0", "\ufeff", "x" * 200_000, "key", "emoji"]
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=5)


def csv_text(columns, rows):
    """A table as text, whose cells are written as they are."""
    lines = [",".join(cells) for cells in (columns, *rows)]
    return "\n".join(lines)


@st.composite
def tables(draw, columns):
    """The bytes of a table with odd cells, into which an odd text may be written anywhere."""
    any_row = st.lists(CELLS, min_size=1, max_size=5)
    complete_row = st.tuples(*[CELLS] * len(columns))
    rows = draw(st.lists(any_row | complete_row, max_size=4))
    text = csv_text(columns, rows) + "\n"
    if draw(st.booleans()):
        position = draw(st.integers(0, len(text)))
        text = text[:position] + draw(TEXTS) + text[position:]
    return text.encode()


@st.composite
def readers_and_files(draw):
    """A function that reads classes, and the bytes of a file for it."""
    reader = draw(st.sampled_from(list(COLUMNS_BY_READER)))
    content = draw(tables(COLUMNS_BY_READER[reader]) | st.binary(max_size=50))
    return reader, content


def assert_label_space_is_sound(space):
    """Assert that classes have keys and outputs of their own, and that JSON keeps them."""
    number_of_classes = len(space.keys)
    assert number_of_classes > 0
    assert len(space.indices) == number_of_classes
    assert len(space.names) == number_of_classes
    assert len(set(space.keys)) == number_of_classes
    assert all(space.keys)
    for outputs in space.indices:
        assert outputs
        assert list(outputs) == sorted(set(outputs))
        assert set(outputs) <= set(range(space.num_classes))
    if space.also:
        assert any(space.also)
        assert len(space.also) == number_of_classes
    for label, other_answers in enumerate(space.also):
        assert list(other_answers) == sorted(set(other_answers) - {label})
        assert set(other_answers) <= set(range(number_of_classes))
    stored = json.dumps(space.to_json())
    assert LabelSpace.from_json(json.loads(stored)) == space


@pytest.mark.thorough
@fuzzed(230)
@given(readers_and_files())
def test_any_table_of_classes_is_taken_or_refused_with_its_file(reader_and_file):
    reader, content = reader_and_file
    with folder_of({"classes.csv": content}) as folder:
        path = folder / "classes.csv"
        result = outcome(lambda: reader(path))
    if isinstance(result, str):
        assert str(path) in result, result
    else:
        assert isinstance(result, LabelSpace)
        assert_label_space_is_sound(result)


FILE_NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.translate(None, b"/\0"))


@fuzzed(60)
@given(st.lists(FILE_NAMES, max_size=4))
def test_a_folder_with_any_names_is_packed_or_refused(names):
    with tempfile.TemporaryDirectory() as top:
        # given
        folder = Path(top, "images")
        archive = Path(top, "a.tar")
        folder.mkdir()
        for name in set(names):
            is_only_dots = not name.strip(b".")
            if not is_only_dots:
                (folder / name.decode("utf-8", "surrogateescape")).write_bytes(name)
        # when
        result = outcome(lambda: (listing(folder), pack(folder, archive, "set"), files_in(folder)))
        # then
        assert isinstance(result, tuple) or "contains no files" in result
        assert {path.name for path in Path(top).iterdir()} <= {"images", "a.tar"}

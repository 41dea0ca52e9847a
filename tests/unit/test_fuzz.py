"""Whatever stands in config, catalogue and class files is taken or refused with one sentence.

No name in them leads out of the project's folders.
"""

import contextlib
import copy
import dataclasses
import hashlib
import json
import posixpath
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rib.analyses.effective_robustness.baselines import baselines
from rib.config import catalog as catalogue
from rib.config.catalog import Catalog
from rib.config.grid import Grid, resolve_grid
from rib.config.label_space import (
    LabelSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_table,
    read_timm_list,
    read_wnid_list,
)
from rib.config.schema import read_yaml, validated
from rib.data.download import download
from rib.data.folders import files_of, listing, pack
from rib.data.variables import ARCHIVES
from rib.jobs import code_digest
from tiny.fuzz import NAMES, ODD, PLAIN, POINTING, VALUES, fuzzed, mutated, outcome

pytestmark = pytest.mark.attack("fuzzing")

CATALOG = Path(__file__).parents[2] / "workflow/catalog"
KINDS = ("family", "datasets", "models", "methods", "recipes", "config")
# Parts that entries share, and a catalogue with every kind of source and of method.
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
    pretrain: {dataset: memory, size: 0.5, test: test, epochs: 1, batch_size: 8, lr: 0.1, seed: 3}
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
  blend: {<<: *method, label: blend, algorithm: soup, parents: [ft, lwf]}
  deep: {<<: *method, label: deep, algorithm: layered, settings: {layers: [0, 1]}}
  only: {<<: *method, label: only, algorithm: ft, settings: {recipe: mine, lr: 0.1, epochs: [1, 2]}}
""")
FILE = OWN.pop("parts")["file"]
BESIDE = {
    "classes/own.csv": "key,name\na,A\nb,B\nc,C\n",
    "classes/some.csv": "key,name\nb,B\nc,C\n",
    "classes/icons.csv": "codepoint,icon\na,ant\n",
    "methods/layered.py": "from rib.methods import algorithm\n\n\n@algorithm\nclass L:\n"
    "    def __init__(self, *, layers: list[int]): ...\n",
}
CONFIG = {"family": "own", "accept_terms": ["a"]} | dict.fromkeys(
    ("models", "methods", "targets", "datasets"), "all"
)
# Names that stand for something, where mutated ones are refused at once.
OWN_NAMES = [
    "own",
    "red",
    "green",
    "memory",
    "test",
    "net",
    "made",
    "file",
    "mine",
    "blend",
    "own.csv",
]
KNOWN = st.sampled_from([*OWN_NAMES, "ft", "noto", "iconify", "lora"])
ENTRIES = VALUES | NAMES | KNOWN | st.lists(KNOWN, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def parsed_once():
    """The project's own catalogue, parsed and checked once for all examples."""
    parse, check, read, seen = catalogue.read_yaml, catalogue.validated, {}, {}

    def parsed(path):
        if not path.is_relative_to(CATALOG):
            return parse(path)
        if path not in read:
            read[path] = parse(path)
        return dict(read[path])

    def checked(value, schema, where):
        if not where.startswith(str(CATALOG)):
            return check(value, schema, where)
        if where not in seen:
            seen[where] = check(value, schema, where)
        return copy.deepcopy(seen[where])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "read_yaml", parsed)
        patch.setattr(catalogue, "validated", checked)
        yield


@contextlib.contextmanager
def folder_of(files):
    """A folder with files: trees as YAML, text, or bytes; None for a folder of that name."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str | bytes):
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            else:
                path.write_text(yaml.safe_dump(content), encoding="utf-8")
        yield Path(folder)


def resolved(config, folders):
    """All that is read before a run's first job, as workflow/rules/common.smk does."""
    config = validated(config, "config", "config.yaml")
    catalog = Catalog(folders)
    grid = resolve_grid(config, catalog)
    for entry in grid.datasets_read():
        catalog.label_space(entry), catalog.icons(entry)
    for method in grid.methods.values():
        code_digest.digest(catalog.algorithm_file(method.algorithm))
    for path, place in written(grid):
        inside = path.removeprefix(place)
        assert posixpath.normpath(path) == path and path.startswith(place), path
        assert all(PLAIN.fullmatch(part) for part in inside.split("/")), path
    assert len(set(grid.runs())) == len(set(map(str, grid.runs()))) == len(grid.runs())
    entries = [
        dataclasses.asdict(entry)
        for entry in (*grid.datasets_read(), *grid.models.values(), *grid.methods.values())
    ]
    json.dumps([entries, grid.resolved(), grid.conditions()], allow_nan=False)
    return grid


def written(grid):
    """Where a grid's jobs write, each with the folder that it is to lie in (workflow/rules)."""
    family = grid.family.name
    for name, entry in grid.catalog.sources.items():
        for source in entry.sources:
            yield f"data/raw/{name}/{source['file']}", "data/raw/"
            yield f"work/partial/0-{source['file']}", "work/partial/"
    geometries = [grid.geometry(name).key for name in grid.models]
    parts = [
        *(entry.name for entry in grid.datasets_read()),
        *(f"group_{name}" for name in grid.evaluation_groups()),
    ]
    assert len(parts) == len(set(parts))
    for part in parts:
        yield from ((f"results/{family}/prepare/{part}/{key}", "results/") for key in geometries)
    yield from ((f"results/{family}/models/{name}", "results/") for name in grid.models)
    for run in grid.runs():
        yield f"results/{family}/{grid.config['protocol']}/finetune/{run}", "results/"
    yield from ((f"{top}/{family}", f"{top}/") for top in ("reports", "logs"))


@pytest.mark.thorough
@fuzzed(150)
@given(st.data())
def test_any_config_is_taken_or_refused(data):
    family = data.draw(st.sampled_from(["emoji", "fashion", "imagenet"]))
    config = data.draw(
        mutated(
            {**validated({}, "config", "defaults"), "family": family},
            VALUES | st.lists(NAMES, max_size=3),
        )
    )
    result = outcome(lambda: resolved(config, [CATALOG]))
    assert isinstance(result, Grid) or "config" in result or "families/" in result, result


@st.composite
def choices(draw):
    """A config of known names, most of them of one family."""
    catalog = Catalog([CATALOG])
    family = draw(st.sampled_from(sorted(catalog.families)))
    datasets = [name for name, entry in catalog.datasets.items() if entry.family == family]
    models = [name for name, entry in catalog.models.items() if family in entry.families]
    lists = {
        "models": models,
        "methods": list(catalog.methods),
        "targets": datasets,
        "datasets": datasets,
    }
    several = {
        key: st.sampled_from(["all", "default"])
        | st.lists(st.sampled_from(names), min_size=1, max_size=4)
        for key, names in lists.items()
    }
    value = st.sampled_from([0.1, 1, "1e-3", "all", 10**400, -1]) | VALUES
    setting = st.dictionaries(
        st.sampled_from(["lr", "rank", "weight", "distil", "steps", "epochs", "recipe"]),
        value | st.lists(value, max_size=3),
        max_size=2,
    )
    limit = st.sampled_from(["all", 1, 500, 0.1, 1.0, "0.5"])
    name = st.sampled_from(["default", *datasets, "noto"])
    more = {
        "reference": st.sampled_from(["none", "default", "fashion_train", "imagenet_train"]),
        "protocol": st.sampled_from(["paper", "held_out"]),
        "accept_terms": st.just("objectnet_tuning"),
        "recipes": st.sampled_from(["all", "default", "adamw"]) | st.lists(NAMES, max_size=2),
        "training": st.fixed_dictionaries(
            {}, optional={"epochs": st.integers(0), "steps": st.integers(0)}
        ),
        "method_settings": st.dictionaries(
            st.sampled_from(["ft", "lora", "lwf", "wise_ft_curve"]), setting, max_size=2
        ),
        "train_subset": st.lists(
            st.just("all") | st.integers(1) | st.floats(0.0001, 1, exclude_max=True),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        "budget": st.fixed_dictionaries(
            {"max_images_per_dataset": limit | st.dictionaries(name, limit, min_size=1, max_size=2)}
        ),
        "seeds": st.lists(st.integers(0, (1 << 31) - 1), min_size=1, max_size=3, unique=True),
        "image_size": st.sampled_from(["native", 32, 1024, "33"]),
    }
    return {"family": family, **draw(st.fixed_dictionaries({}, optional={**several, **more}))}


@pytest.mark.thorough
@fuzzed(120)
@given(choices())
def test_any_choice_of_what_there_is_is_taken_or_refused(config):
    outcome(lambda: resolved(config, [CATALOG]))


@pytest.mark.thorough
@fuzzed(110)
@given(mutated(OWN, ENTRIES))
def test_any_catalogue_is_taken_or_refused(own):
    files = {name if isinstance(name, str) else "x": tree for name, tree in own.items()}
    files = {name: tree for name, tree in files.items() if name in OWN}
    with folder_of({**files, **BESIDE}) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


NAMED = [
    ("families/own.yaml", "classes", "file"),
    *(
        ("datasets.yaml", "red", key)
        for key in (
            "family",
            "evaluation_group",
            "source_group",
            "variant_of",
            "icons_file",
            "layout",
        )
    ),
    ("datasets.yaml", "red", "source", "file"),
    ("datasets.yaml", "red", "source", "path"),
    ("datasets.yaml", "again", "archives_of"),
    ("datasets.yaml", "green", "classes", "file"),
    ("models.yaml", "net", "architecture"),
    *(("models.yaml", "net", "source", key) for key in ("repo", "path", "file", "revision")),
    ("models.yaml", "file", "weights", "member"),
    ("methods.yaml", "mine", "algorithm"),
    ("methods.yaml", "mine", "settings", "also"),
    ("methods.yaml", "mine", "starts_from"),
    ("families/own.yaml", "defaults", "recipes", 0),
]


@pytest.mark.thorough
@fuzzed(100)
@given(st.sampled_from(NAMED), NAMES | st.sampled_from(POINTING + ODD))
def test_no_value_leads_out_of_the_projects_folders(place, name):
    own = copy.deepcopy(OWN)
    holder = own
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = name
    with folder_of({**own, **BESIDE}) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


@pytest.mark.thorough
@fuzzed(80)
@given(
    st.sampled_from(["families", "datasets", "models", "methods", "recipes"]),
    NAMES | st.from_regex(r"[A-Za-z0-9_.-]{1,4}\n?"),
)
def test_no_name_of_an_entry_leads_out_of_the_projects_folders(kind, name):
    own, config = copy.deepcopy(OWN), dict(CONFIG)
    if kind == "families":
        file = (
            name.encode("utf-8", "replace").decode().replace("/", "_").replace("\0", "_")[:50]
            + ".yaml"
        )
        name = Path(file).stem
        own[f"families/{file}"] = own.pop("families/own.yaml")
        for entry in own["datasets.yaml"].values():
            entry["family"] = name
        for entry in own["models.yaml"].values():
            entry["families"] = [name]
        config["family"] = name
    else:
        first = next(iter(own[f"{kind}.yaml"]))
        own[f"{kind}.yaml"] = {name: own[f"{kind}.yaml"][first], **own[f"{kind}.yaml"]}
    with folder_of({**own, **BESIDE}) as folder:
        result = outcome(lambda: resolved(config, [CATALOG, folder]))
    assert PLAIN.fullmatch(name) or isinstance(result, str), name


@pytest.mark.parametrize("name", ["x", "A_1"])
def test_plain_names_are_taken(name):
    """What the tests here change is valid before."""
    own = {**OWN, f"families/{name}.yaml": OWN["families/own.yaml"]}
    own["models.yaml"] = {name: OWN["models.yaml"]["net"], **OWN["models.yaml"]}
    with folder_of({**own, **BESIDE}) as folder:
        grid = outcome(lambda: resolved(CONFIG, [CATALOG, folder]))
        assert (
            name in grid.models
            and name in grid.catalog.families
            and "mine-lr0.2-rank4" in grid.methods
        )


TOKENS = [
    "!!int ''",
    "!!bool x",
    "!!timestamp x",
    "!!map x",
    "!!set {a}",
    "!!python/name:os.system",
    "2020-13-45",
]
TOKENS += ["*none", "? [1]: 2", "<<: 3"]
TOKENS += [
    "- a\n- b",
    "\t",
    "---",
    "%YAML 9",
    "|",
    "'",
    "[" * 2000,
    "a: {a: 1, a: 2}",
    "1: 2",
    "~: 1",
    "true: 1",
]
TOKENS += ["\x00", "!!binary '\xe9'", "1e999", ".nan", "{}", "[]", "\n", ": ", ", "]


@pytest.mark.thorough
@fuzzed(150)
@given(
    st.sampled_from(sorted(OWN)),
    st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 40), st.sampled_from(TOKENS) | st.text(max_size=3)
        ),
        max_size=3,
    ),
    st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "cp500"]),
    st.binary(max_size=3),
)
def test_any_yaml_text_is_taken_or_refused_with_its_file(name, changes, encoding, tail):
    text = yaml.safe_dump(OWN[name])
    for place, length, token in changes:
        start = int(place * len(text))
        text = text[:start] + token + text[start + length :]
    with folder_of({name: text.encode(encoding, "replace") + tail}) as folder:
        kind = "family" if "/" in name else name.removesuffix(".yaml")
        result = outcome(lambda: validated(read_yaml(folder / name), kind, str(folder / name)))
        assert isinstance(result, dict) or str(folder / name) in result, result


@pytest.mark.thorough
@fuzzed(80)
@given(st.binary(max_size=60) | st.sampled_from(TOKENS).map(str.encode), st.sampled_from(KINDS))
def test_any_bytes_are_taken_or_refused_as_yaml(data, kind):
    with folder_of({"x.yaml": data}) as folder:
        result = outcome(
            lambda: validated(read_yaml(folder / "x.yaml"), kind, str(folder / "x.yaml"))
        )
        assert isinstance(result, dict) or str(folder / "x.yaml") in result, result


PYTHON = BESIDE["methods/layered.py"]


@pytest.mark.thorough
@fuzzed(60)
@given(
    st.sampled_from(
        [
            *OWN,
            *BESIDE,
            "families",
            "classes",
            "methods",
            "methods/new.py",
            "layouts/new.py",
            "methods/y z.py",
        ]
    ),
    st.none()
    | st.binary(max_size=20)
    | st.tuples(st.integers(0, len(PYTHON)), NAMES).map(
        lambda cut: (PYTHON[: cut[0]] + cut[1]).encode("utf-8", "surrogatepass")
    ),
)
def test_any_file_or_folder_of_a_catalogue_is_taken_or_refused(name, content):
    files = {
        path: text for path, text in {**OWN, **BESIDE}.items() if not path.startswith(f"{name}/")
    }
    with folder_of({**files, name: content}) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


@pytest.mark.thorough
@fuzzed(40)
@given(st.lists(NAMES, max_size=3))
def test_any_folders_are_taken_or_refused_as_catalogue(names):
    outcome(lambda: resolved({"family": "fashion", "catalog": names}, [CATALOG, *names]))


READERS = {
    read_class_map: ("emoji", "codepoint", "wnids", "also", "reason"),
    read_wnid_list: ("wnid",),
    read_index_map: ("key", "indices"),
    read_own_classes: ("key", "name"),
}
WNIDS = imagenet_wnids()[:4]
CELLS = (
    st.sampled_from(
        [*WNIDS, " ".join(WNIDS[:2]), "0", "0 1", "999", "1000", "-1", "²", "٣", "a", "b"]
    )
    | NAMES
)
TEXT = st.sampled_from(
    ['"', ",", "\n", "\r", "\r\n", "\0", "\ufeff", "x" * 200_000, "key", "emoji"]
) | st.text(max_size=5)


@st.composite
def tables(draw, columns):
    """A table with odd cells, one text of it replaced by another."""
    rows = draw(
        st.lists(
            st.lists(CELLS, min_size=1, max_size=5) | st.tuples(*[CELLS] * len(columns)), max_size=4
        )
    )
    text = "\n".join(",".join(row) for row in [columns, *rows]) + "\n"
    for place in draw(st.lists(st.integers(0, len(text)), max_size=1)):
        text = text[:place] + draw(TEXT) + text[place:]
    return text.encode()


@fuzzed(230)
@given(st.sampled_from(list(READERS)), st.data())
def test_any_table_of_classes_is_taken_or_refused_with_its_file(reader, data):
    content = data.draw(tables(READERS[reader]) | st.binary(max_size=50))
    with folder_of({"classes.csv": content}) as folder:
        result = outcome(lambda: reader(folder / "classes.csv"))
        if isinstance(result, str):
            assert str(folder / "classes.csv") in result, result
            return
    assert (
        isinstance(result, LabelSpace)
        and len(result.keys) == len(result.indices) == len(result.names) > 0
    )
    assert len(set(result.keys)) == len(result.keys) and all(result.keys)
    for row in result.indices:
        assert row and list(row) == sorted(set(row)) and 0 <= row[0] <= row[-1] < result.num_classes
    assert not result.also or (any(result.also) and len(result.also) == len(result.keys))
    for label, others in enumerate(result.also):
        assert list(others) == sorted(set(others) - {label}) and set(others) <= set(
            range(len(result.keys))
        )
    assert LabelSpace.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.thorough
@fuzzed(60)
@given(
    NAMES
    | st.sampled_from(["imagenet21k_goog", "imagenet12k", "mini_imagenet", "imagenet_a_synsets"])
)
def test_any_name_of_a_timm_list_is_taken_or_refused(name):
    outcome(lambda: read_timm_list(name))


@pytest.mark.thorough
@fuzzed(40)
@given(st.lists(st.lists(CELLS, max_size=5), max_size=3))
def test_published_numbers_are_taken_or_refused_with_their_file(rows):
    text = "\n".join(",".join(row) for row in [("model", "dataset", "accuracy", "source"), *rows])
    with folder_of({**OWN, **BESIDE, "published.csv": text, "baselines.csv": text}) as folder:
        outcome(lambda: baselines(resolved(CONFIG, [CATALOG, folder])))
        outcome(lambda: list(read_table(folder / "published.csv", ("model", "accuracy"))))


@fuzzed(60)
@given(
    st.lists(
        st.binary(min_size=1, max_size=12).map(lambda name: name.translate(None, b"/\0")),
        max_size=4,
    )
)
def test_a_folder_with_any_names_is_packed_or_refused(names):
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "images")
        folder.mkdir()
        for name in {name for name in names if name.strip(b".")}:
            Path(bytes(folder).decode(), name.decode("utf-8", "surrogateescape")).write_bytes(name)
        result = outcome(
            lambda: (listing(folder), pack(folder, Path(top, "a.tar"), "set"), files_of(folder))
        )
        assert isinstance(result, tuple) or "contains no files" in result
        assert {path.name for path in Path(top).iterdir()} <= {"images", "a.tar"}


@pytest.mark.thorough
@fuzzed(60)
@given(
    NAMES | st.just("../here.zip"),
    st.lists(NAMES.filter(lambda name: "\0" not in name), max_size=2),
)
def test_any_place_of_an_archive_is_looked_at_or_refused(name, folders):
    """A file may come from anywhere, and is put where it belongs."""
    source = {**FILE, "path": name, "digest": f"md5:{hashlib.md5(b'zip').hexdigest()}"}
    own = {"x": {**OWN["datasets.yaml"]["red"], "source": source}}
    with (
        folder_of({"own/datasets.yaml": own, "here.zip": b"zip"}) as top,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(top)
        patch.setenv(ARCHIVES, ":".join(folders))
        (top / "raw").mkdir()
        result = outcome(
            lambda: download(
                Catalog([top / "own"]).datasets["x"].sources[0], top / "raw/b.zip", "x"
            )
        )
        assert isinstance(result, str) or (top / "raw/b.zip").read_bytes() == b"zip"
        assert {path.name for path in top.iterdir()} == {"own", "here.zip", "raw"}
        assert {path.name for path in (top / "raw").iterdir()} <= {"b.zip"}

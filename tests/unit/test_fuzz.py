"""Whatever stands in config, catalogue and class files: it is taken or refused with one sentence, and no name of it leads
out of the project's folders."""

import contextlib
import copy
import hashlib
import json
import posixpath
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from rib import catalog as catalogue
from rib import code
from rib.catalog import Catalog, is_text, read_yaml, validated
from rib.classes import (
    ClassSpace,
    imagenet_wnids,
    read_class_map,
    read_index_map,
    read_own_classes,
    read_table,
    read_timm_list,
    read_wnid_list,
)
from rib.data.download import ARCHIVES, download
from rib.data.folders import files_of, listing, pack
from rib.grid import Grid
from tiny.fuzz import NAMES, ODD, PLAIN, POINTING, VALUES, fuzzed, mutated, outcome

CATALOG = Path(__file__).parents[2] / "workflow/catalog"
KINDS = ("family", "datasets", "models", "methods", "config")
COMMON = {"batch_norm": "frozen", "dropout": 0.0, "drop_path": 0.0}
STYLE = {"colour": "#000000", "marker": "x"}
SHA = "sha256:" + "0" * 64
FOLDER = {"kind": "folder", "path": "images"}
FILE = {"kind": "file", "path": "a/b.zip", "file": "b.zip", "digest": SHA}
HTTP = {"kind": "http", "urls": ["https://example.org/a.tar"], "file": "a.tar", "digest": SHA, "size": 9}
WHEEL = {"kind": "pypi", "package": "p", "version": "1.0", "file": "p-1.0-py3-none-any.whl", "digest": SHA}
NPM = {"kind": "npm", "package": "@s/p", "version": "1.0", "file": "s-p-1.0.tgz", "digest": "sha512-x"}
MANUAL = {"kind": "manual", "page": "https://example.org", "terms": "None.", "file": "m.zip", "digest": SHA}
HUB = {"kind": "hub", "repo": "o/r", "path": "d/m.safetensors", "file": "net.safetensors", "revision": "main"}


def dataset(source, **more):
    where = {"sources": source} if isinstance(source, list) else {"source": source}
    about = {"family": "own", "label": "Set", "layout": "class_folders", "licence": "none", "origin": "tests"}
    return {**about, **where, **more}


def model(**more):
    half = [0.5, 0.5, 0.5]
    preprocessing = {"size": 64, "crop": 0.9, "interpolation": "bicubic", "mean": half, "std": half}
    about = {"families": ["own"], "label": "Net", "type": "cnn", "pretraining": "none", "library": "timm"}
    return {
        **about,
        "architecture": "test_resnet",
        "preprocessing": preprocessing,
        "licence": "n",
        "style": STYLE,
        **more,
    }


OWN = {
    "families/own.yaml": {
        "title": "Own",
        "description": "sets of tests",
        "classes": {"file": "own.csv", "format": "own"},
        "crop": 1.0,
        "example_target": "red",
        "reference": "memory",
        "one_image_per_class": False,
        "method_settings": {"ft": {"lr": 0.1}, "mine": {"rank": [2, 4]}},
        "defaults": {
            "models": ["net", "made"],
            "methods": ["ft", "mine", "blend"],
            "targets": ["red"],
            "image_size": 64,
            "epochs": 2,
            "batch_size": 8,
        },
    },
    "datasets.yaml": {
        "red": dataset(FOLDER, source_group="g", suite="own", images=9, publishable=False),
        "green": dataset(
            [FILE, WHEEL], classes={"file": "some.csv", "format": "own"}, tuning={"accept": "a", "terms": "No."}
        ),
        "again": {**dataset({}, variant_of="red", exclude={"a/1.jpg": "blurred"}), "archives_of": "red"},
        "drawn": dataset(NPM, layout="iconify", settings={"margin": 0.06}, icons_file="icons.csv", optional=True),
        "noisy": dataset(
            [HTTP, MANUAL],
            layout="corruptions",
            settings={"corruptions": ["fog"], "severities": [1]},
            storage="encoded",
        ),
        "odd": dataset(MANUAL, layout="objectnet", settings={"border": 2, "also": {"x": "a"}}, about_images=7),
        "font": dataset(WHEEL, layout="digit_fonts", settings={"fonts": ["DejaVuSans"]}, adversarially_filtered=True),
        "memory": dataset(FOLDER, role="reference"),
        "test": dataset(FOLDER, role="in_distribution"),
    },
    "models.yaml": {
        "net": model(source=HUB, head="none", parameters=9, baseline=True),
        "made": model(
            pretrain={
                "dataset": "memory",
                "size": 0.5,
                "test": "test",
                "epochs": 1,
                "batch_size": 8,
                "lr": 0.1,
                "seed": 3,
            }
        ),
        "file": model(source=FILE, weights={"member": "a/b.pth", "keys": "by_order"}, type="vit"),
    },
    "methods.yaml": {
        "mine": {
            "label": "mine",
            "mechanism": "lora",
            "settings": {"lr": [0.1, 0.2], **COMMON, "rank": 8, "alpha": 8, "also": "none"},
            "starts_from": "linear_probe",
            "source": "tests",
            "style": STYLE,
            "types": ["vit", "cnn"],
        },
        "blend": {"label": "blend", "mechanism": "soup", "parents": ["ft", "lwf"], "source": "tests", "style": STYLE},
        "deep": {
            "label": "deep",
            "mechanism": "layered",
            "settings": {"layers": [0, 1]},
            "source": "t",
            "style": STYLE,
        },
    },
}
del OWN["datasets.yaml"]["again"]["source"]
BESIDE = {
    "classes/own.csv": "key,name\na,A\nb,B\nc,C\n",
    "classes/some.csv": "key,name\nb,B\nc,C\n",
    "classes/icons.csv": "codepoint,icon\na,ant\n",
    "methods/layered.py": "from rib.methods import mechanism\n\n\n@mechanism\nclass L:\n"
    "    def __init__(self, *, layers: list[int]): ...\n",
}
CONFIG = {"family": "own", "models": "all", "methods": "all", "targets": "all", "datasets": "all", "accept": ["a"]}
# Names that stand for something, where mutated ones are refused at once.
KNOWN = st.sampled_from(
    [
        "own",
        "red",
        "green",
        "memory",
        "test",
        "net",
        "made",
        "file",
        "ft",
        "mine",
        "blend",
        "noto",
        "iconify",
        "lora",
        "own.csv",
    ]
)
ENTRIES = VALUES | NAMES | KNOWN | st.lists(KNOWN, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def parsed_once():
    """The project's own catalogue, parsed and checked once for all examples."""
    parse, check, seen = catalogue.read_yaml, catalogue.validated, {}

    def parsed(path):
        return None if path.is_relative_to(CATALOG) else parse(path)

    def checked(value, schema, where):
        if not where.startswith(str(CATALOG)):
            return check(value, schema, where)
        if where not in seen:
            seen[where] = check(parse(Path(where)), schema, where)
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
    grid = Grid(config, catalog)
    grid.compared_runs()
    for entry in grid.datasets_read():
        catalog.space(entry), catalog.icons(entry)
    for method in grid.methods.values():
        code.digest(catalog.mechanism_file(method.mechanism))
    for path, place in written(grid):
        inside = path.removeprefix(place)
        assert posixpath.normpath(path) == path and path.startswith(place), path
        assert all(PLAIN.fullmatch(part) for part in inside.split("/")), path
    assert len(set(grid.runs())) == len({written_run(run) for run in grid.runs()}) == len(grid.runs())
    entries = [vars(entry) for entry in (*grid.datasets_read(), *grid.models.values(), *grid.methods.values())]
    json.dumps([entries, grid.resolved(), grid.conditions()], allow_nan=False, ensure_ascii=False).encode()
    return grid


def written_run(run):
    return f"{run.model}/{run.target}/{run.method}/{run.size}/{run.seed}"


def written(grid):
    """Where a grid's jobs write, each with the folder that it is to lie in (workflow/rules)."""
    family = grid.family.name
    for name, entry in grid.catalog.sources.items():
        for source in entry.sources:
            yield f"data/raw/{name}/{source['file']}", "data/raw/"
            yield f"work/partial/0-{source['file']}", "work/partial/"
    geometries = [grid.geometry(name).key for name in grid.models]
    parts = [*(entry.name for entry in grid.datasets_read()), *(f"suite_{name}" for name in grid.suites())]
    assert len(parts) == len(set(parts))
    for part in parts:
        yield from ((f"results/{family}/prepare/{part}/{key}", "results/") for key in geometries)
    yield from ((f"results/{family}/models/{name}", "results/") for name in grid.models)
    for run in grid.runs():
        yield f"results/{family}/{grid.config['protocol']}/finetune/{written_run(run)}", "results/"
    yield from ((f"{top}/{family}", f"{top}/") for top in ("reports", "logs"))


def places_of(schema):
    """A value for every key of a schema: its default."""
    return validated({}, schema, "defaults")


@fuzzed(150)
@given(st.data())
def test_any_config_is_taken_or_refused(data):
    family = data.draw(st.sampled_from(["emoji", "digits", "imagenet"]))
    config = data.draw(mutated({**places_of("config"), "family": family}, VALUES | st.lists(NAMES, max_size=3)))
    told = outcome(lambda: resolved(config, [CATALOG]))
    assert isinstance(told, Grid) or "config" in told or "families/" in told, told


@st.composite
def choices(draw):
    """A config of known names, most of them of one family."""
    catalog = Catalog([CATALOG])
    family = draw(st.sampled_from(sorted(catalog.families)))
    datasets = [name for name, entry in catalog.datasets.items() if entry.family == family]
    models = [name for name, entry in catalog.models.items() if family in entry.families]
    lists = {"models": models, "methods": list(catalog.methods), "targets": datasets, "datasets": datasets}
    several = {
        key: st.sampled_from(["all", "default"]) | st.lists(st.sampled_from(names), min_size=1, max_size=4)
        for key, names in lists.items()
    }
    value = st.sampled_from([0.1, 1, "1e-3", "all", 10**400, -1]) | VALUES
    setting = st.dictionaries(
        st.sampled_from(["lr", "rank", "weight", "distil", "steps"]), value | st.lists(value, max_size=3), max_size=2
    )
    more = {
        "reference": st.sampled_from(["none", "default", "digits", "imagenet_train"]),
        "protocol": st.sampled_from(["paper", "held_out"]),
        "accept": st.just("objectnet_tuning"),
        "method_settings": st.dictionaries(
            st.sampled_from(["ft", "lora", "lwf", "wise_ft_curve"]), setting, max_size=2
        ),
        "downstream_size": st.lists(
            st.just("all") | st.integers(1) | st.floats(0.0001, 1, exclude_max=True),
            min_size=1,
            max_size=3,
            unique=True,
        ),
        "seeds": st.lists(st.integers(0, 1 << 63), min_size=1, max_size=3, unique=True),
        "image_size": st.sampled_from(["native", 32, 1024, "33"]),
    }
    return {"family": family, **draw(st.fixed_dictionaries({}, optional={**several, **more}))}


@fuzzed(120)
@given(choices())
def test_any_choice_of_what_there_is_is_taken_or_refused(config):
    outcome(lambda: resolved(config, [CATALOG]))


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
        for key in ("family", "suite", "source_group", "variant_of", "icons_file", "layout")
    ),
    ("datasets.yaml", "red", "source", "file"),
    ("datasets.yaml", "red", "source", "path"),
    ("datasets.yaml", "again", "archives_of"),
    ("datasets.yaml", "green", "classes", "file"),
    ("models.yaml", "net", "architecture"),
    *(("models.yaml", "net", "source", key) for key in ("repo", "path", "file", "revision")),
    ("models.yaml", "file", "weights", "member"),
    ("methods.yaml", "mine", "mechanism"),
    ("methods.yaml", "mine", "settings", "also"),
    ("methods.yaml", "mine", "starts_from"),
]


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


@fuzzed(80)
@given(st.sampled_from(["families", "datasets", "models", "methods"]), NAMES | st.from_regex(r"[A-Za-z0-9_.-]{1,4}\n?"))
def test_no_name_of_an_entry_leads_out_of_the_projects_folders(kind, name):
    own, config = copy.deepcopy(OWN), dict(CONFIG)
    if kind == "families":
        file = name.encode("utf-8", "replace").decode().replace("/", "_").replace("\0", "_")[:50] + ".yaml"
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
        told = outcome(lambda: resolved(config, [CATALOG, folder]))
    assert PLAIN.fullmatch(name) or isinstance(told, str), name


@pytest.mark.parametrize("name", ["x", "A_1"])
def test_plain_names_are_taken(name):
    """What the tests here change is valid before."""
    own = {**OWN, f"families/{name}.yaml": OWN["families/own.yaml"]}
    own["models.yaml"] = {name: OWN["models.yaml"]["net"], **OWN["models.yaml"]}
    with folder_of({**own, **BESIDE}) as folder:
        grid = outcome(lambda: resolved(CONFIG, [CATALOG, folder]))
        assert name in grid.models and name in grid.catalog.families and "mine-lr0.2-rank4" in grid.methods


TOKENS = [
    "!!int ''",
    "!!bool x",
    "!!timestamp x",
    "!!map x",
    "!!set {a}",
    "!!python/name:os.system",
    "2020-13-45",
    "0x" + "f" * 5000,
]
TOKENS += [
    "&a [*a]",
    "&a {b: *a}",
    "*none",
    "? [1]: 2",
    "<<: 3",
    "<<: [*a]",
    "- a\n- b",
    "\t",
    "---",
    "%YAML 9",
    "|",
    "'",
    "[" * 2000,
]
TOKENS += [
    "a: {a: 1, a: 2}",
    "1: 2",
    "~: 1",
    "\x00",
    "\ud7ff",
    "true: 1",
    "!!binary '\xe9'",
    "1e999",
    ".nan",
    "{}",
    "[]",
    "\n",
    ": ",
    ", ",
]


@fuzzed(150)
@given(
    st.sampled_from(sorted(OWN)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.sampled_from(TOKENS) | st.text(max_size=3)), max_size=3),
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
        told = outcome(lambda: validated(read_yaml(folder / name), kind, str(folder / name)))
        assert isinstance(told, dict) or str(folder / name) in told, told


@fuzzed(80)
@given(st.binary(max_size=60) | st.sampled_from(TOKENS).map(str.encode), st.sampled_from(KINDS))
@example(b"&a [*a]", "methods")
@example(b"a: &a {settings: *a}", "methods")
def test_any_bytes_are_taken_or_refused_as_yaml(data, kind):
    with folder_of({"x.yaml": data}) as folder:
        told = outcome(lambda: validated(read_yaml(folder / "x.yaml"), kind, str(folder / "x.yaml")))
        assert isinstance(told, dict) or str(folder / "x.yaml") in told, told


PYTHON = BESIDE["methods/layered.py"]


@fuzzed(60)
@given(
    st.sampled_from(
        [*OWN, *BESIDE, "families", "classes", "methods", "methods/new.py", "layouts/new.py", "methods/y z.py"]
    ),
    st.none()
    | st.binary(max_size=20)
    | st.tuples(st.integers(0, len(PYTHON)), NAMES).map(
        lambda cut: (PYTHON[: cut[0]] + cut[1]).encode("utf-8", "surrogatepass")
    ),
)
def test_any_file_or_folder_of_a_catalogue_is_taken_or_refused(name, content):
    files = {path: text for path, text in {**OWN, **BESIDE}.items() if not path.startswith(f"{name}/")}
    with folder_of({**files, name: content}) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]))


@fuzzed(40)
@given(st.lists(NAMES, max_size=3))
def test_any_folders_are_taken_or_refused_as_catalogue(names):
    outcome(lambda: resolved({"family": "digits", "catalog": names}, [CATALOG, *names]))


READERS = {
    read_class_map: ("emoji", "codepoint", "wnids", "reason"),
    read_wnid_list: ("wnid",),
    read_index_map: ("key", "indices"),
    read_own_classes: ("key", "name"),
}
WNIDS = imagenet_wnids()[:4]
CELLS = (
    st.sampled_from([*WNIDS, " ".join(WNIDS[:2]), "0", "0 1", "999", "1000", "-1", "²", "٣", "9" * 5000, "a", "b"])
    | NAMES
)
TEXT = st.sampled_from(['"', ",", "\n", "\r", "\r\n", "\0", "\ufeff", "x" * 200_000, "key", "emoji"]) | st.text(
    max_size=5
)


def class_file_is_read(data: bytes, reader):
    with folder_of({"classes.csv": data}) as folder:
        told = outcome(lambda: reader(folder / "classes.csv"))
        if isinstance(told, str):
            assert str(folder / "classes.csv") in told, told
            return
    assert isinstance(told, ClassSpace) and len(told.keys) == len(told.indices) == len(told.names) > 0
    assert len(set(told.keys)) == len(told.keys) and all(told.keys)
    assert all(row and list(row) == sorted(set(row)) and 0 <= row[0] <= row[-1] < told.outputs for row in told.indices)
    assert ClassSpace.from_json(json.loads(json.dumps(told.to_json()))).digest == told.digest


@fuzzed(150)
@given(st.sampled_from(sorted(READERS, key=lambda reader: reader.__name__)), st.data())
def test_any_table_of_classes_is_taken_or_refused_with_its_file(reader, data):
    columns = READERS[reader]
    rows = data.draw(st.lists(st.lists(CELLS, min_size=1, max_size=5) | st.tuples(*[CELLS] * len(columns)), max_size=4))
    text = "\n".join(",".join(row) for row in [columns, *rows]) + "\n"
    for place in data.draw(st.lists(st.integers(0, len(text)), max_size=1)):
        text = text[:place] + data.draw(TEXT) + text[place:]
    class_file_is_read(text.encode("utf-8", "surrogatepass"), reader)


@fuzzed(80)
@given(
    st.sampled_from(sorted(READERS, key=lambda reader: reader.__name__)),
    st.binary(max_size=50) | st.lists(TEXT, max_size=4).map("".join).map(lambda text: text.encode("utf-8", "replace")),
)
def test_any_bytes_are_taken_or_refused_as_classes(reader, data):
    class_file_is_read(data, reader)


@fuzzed(60)
@given(NAMES | st.sampled_from(["imagenet21k_goog", "imagenet12k", "mini_imagenet", "imagenet_a_synsets"]))
def test_any_name_of_a_timm_list_is_taken_or_refused(name):
    outcome(lambda: read_timm_list(name))


@fuzzed(40)
@given(st.lists(st.lists(CELLS, max_size=5), max_size=3))
def test_published_numbers_are_taken_or_refused_with_their_file(rows):
    text = "\n".join(",".join(row) for row in [("model", "dataset", "accuracy", "source"), *rows])
    files = {
        **OWN,
        **BESIDE,
        "published.csv": text.encode("utf-8", "replace"),
        "baselines.csv": text.encode("utf-8", "replace"),
    }
    with folder_of(files) as folder:
        outcome(lambda: resolved(CONFIG, [CATALOG, folder]).baselines())
        outcome(lambda: list(read_table(folder / "published.csv", ("model", "accuracy"))))


@fuzzed(60)
@given(st.lists(st.binary(min_size=1, max_size=12).map(lambda name: name.translate(None, b"/\0")), max_size=4))
def test_a_folder_with_any_names_is_packed_or_refused(names):
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "images")
        folder.mkdir()
        for name in {name for name in names if name.strip(b".")}:
            Path(bytes(folder).decode(), name.decode("utf-8", "surrogateescape")).write_bytes(name)
        told = outcome(lambda: (listing(folder), pack(folder, Path(top, "a.tar"), "set"), files_of(folder)))
        assert isinstance(told, tuple) or "holds no file" in told
        assert {path.name for path in Path(top).iterdir()} <= {"images", "a.tar"}


@fuzzed(60)
@given(
    NAMES | st.just("../here.zip"), st.lists(NAMES.filter(lambda name: "\0" not in name and is_text(name)), max_size=2)
)
def test_any_place_of_an_archive_is_looked_at_or_refused(name, folders):
    """A file may come from anywhere, and lies where it is told to then."""
    own = {"x": dataset({**FILE, "path": name, "digest": f"md5:{hashlib.md5(b'zip').hexdigest()}"})}
    with folder_of({"own/datasets.yaml": own, "here.zip": b"zip"}) as top, pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.setenv(ARCHIVES, ":".join(folders))
        (top / "raw").mkdir()
        told = outcome(lambda: download(Catalog([top / "own"]).datasets["x"].sources[0], top / "raw/b.zip", "x"))
        assert isinstance(told, str) or (top / "raw/b.zip").read_bytes() == b"zip"
        assert {path.name for path in top.iterdir()} == {"own", "here.zip", "raw"}
        assert {path.name for path in (top / "raw").iterdir()} <= {"b.zip"}

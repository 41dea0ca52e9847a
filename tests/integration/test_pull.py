"""`rib pull` against what a storage, a clone or the project's folder can do to it.

Someone else can write to the storage. Each call of DVC takes a second, so most hostile listings and
.dvc files go to the functions that check them, without a pull around.
"""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from dvc_objects.fs.utils import tmp_fname

from rib.base.errors import UserError
from rib.records.pull import MD5, files_in_listing, md5_in, pull

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
INVALID = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
STORE = Path("../storage/files/md5")
OUTSIDE = Path("../outside.txt")
FILES = {"results/x/a.txt": "a", "results/x/sub/b.txt": "b", "results/y.txt": "y"}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def put(content: bytes, ending: str = "") -> str:
    """Put an object into the storage; its name."""
    name = hashlib.md5(content).hexdigest() + ending
    path = STORE / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return name


def name_of(path: str) -> str:
    """Name of the object that a .dvc file of the project names."""
    return yaml.safe_load(Path(f"{path}.dvc").read_text())["outs"][0]["md5"]


def change(path: str, out: dict, stage: dict | None = None) -> None:
    """Change a .dvc file."""
    whole = yaml.safe_load(Path(f"{path}.dvc").read_text())
    whole["outs"][0].update(out)
    Path(f"{path}.dvc").write_text(yaml.safe_dump({**whole, **(stage or {})}))


def list_instead(listing: object, honest: bool) -> str:
    """Put another listing of results/x into the storage.

    It is named by its hash and in the .dvc file, or as the old one.
    """
    content = listing if isinstance(listing, bytes) else json.dumps(listing).encode()
    name = put(content, ".dir")
    if honest:
        change("results/x", {"md5": name})
        return name
    old = name_of("results/x")
    shutil.move(STORE / name[:2] / name[2:], STORE / old[:2] / old[2:])
    return old


def tree() -> dict[str, object]:
    """Everything in the project and beside it but DVC's folder and the storage.

    That is bytes, and targets of links.
    """
    found = {}
    for path in Path("..").rglob("*"):
        if not {".dvc", "storage"}.intersection(path.parts):
            found[str(path)] = (
                path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
            )
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Folder of a clone without data, of a project, and of the storage.

    The project has a tracked folder and a tracked file.
    """
    folder = tmp_path_factory.mktemp("template")
    (folder / "project/results/x/sub").mkdir(parents=True)
    (folder / "outside.txt").write_text("precious")
    with contextlib.chdir(folder / "project"):
        for path, text in FILES.items():
            Path(path).write_text(text)
        with Repo.init(no_scm=True) as repo:
            config = (
                """[core]\n    remote = storage\n['remote "storage"']\n    url = ../../storage\n"""
            )
            Path(".dvc/config.local").write_text(config)
            repo.add(["results/x", "results/y.txt"])
            repo.push()
        shutil.rmtree("results/x")
        Path("results/y.txt").unlink()
        shutil.rmtree(".dvc/cache")
    return folder


@pytest.fixture
def shared(template, tmp_path, monkeypatch):
    """The current folder is a copy of the clone."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "project")


def pulled() -> bool:
    return {path: Path(path).read_text() for path in FILES if Path(path).is_file()} == FILES


def refused(match: str, *wanted: str) -> str:
    """Pull, which must be refused in one line with nothing changed; the line."""
    before = tree()
    with pytest.raises(UserError, match=match) as error:
        pull(list(wanted))
    assert tree() == before and "\n" not in str(error.value)
    return str(error.value)


def test_all_that_is_tracked_comes_and_stays(shared):
    pull([])
    assert pulled()
    before = tree()
    pull([])
    assert tree() == before


@pytest.mark.parametrize(
    ("wanted", "come"),
    [
        (["results/x/"], ["results/x/a.txt", "results/x/sub/b.txt"]),
        (["results/x/sub"], ["results/x/sub/b.txt"]),
        (["./results/x/a.txt"], ["results/x/a.txt"]),
        (
            ["results", "results/x/a.txt"],
            ["results/x/a.txt", "results/x/sub/b.txt", "results/y.txt"],
        ),
    ],
    ids=str,
)
def test_parts_come_alone(shared, wanted, come):
    pull(wanted)
    assert {path for path in FILES if Path(path).exists()} == set(come)


def test_a_part_leaves_changed_files_elsewhere_alone(shared):
    pull([])
    Path("results/x/a.txt").write_text("changed")
    Path("results/x/new.txt").write_text("new")
    Path("results/x/sub/b.txt").unlink()
    pull(["results/x/sub/b.txt"])
    assert Path("results/x/a.txt").read_text() == "changed" and Path("results/x/new.txt").exists()
    assert Path("results/x/sub/b.txt").read_text() == "b"


def test_a_deleted_file_comes_back_without_the_storage(shared):
    pull([])
    shutil.rmtree("../storage")
    Path("results/x/sub/b.txt").unlink()
    pull([])
    assert pulled()


@pytest.mark.parametrize(
    ("path", "text"),
    [("results/x/a.txt", "changed"), ("results/x/new.txt", "new"), ("results/y.txt", "changed")],
)
def test_a_changed_or_new_file_is_never_overwritten(shared, path, text):
    pull([])
    Path(path).write_text(text)
    line = refused("rib track")
    assert path in line and "--force" not in line
    Path("results/x/sub/b.txt").unlink()
    refused(path)
    Path(path).unlink()
    pull([])
    assert pulled()


def test_a_file_that_is_in_the_way_before_the_first_pull_is_kept(shared):
    Path("results/y.txt").write_text("mine")
    refused("results/y.txt")


def test_no_storage(shared):
    Path(".dvc/config.local").unlink()
    refused("dvc remote add")


@pytest.mark.parametrize("has_listings", [True, False])
def test_a_storage_that_is_not_there_is_named(shared, has_listings):
    if has_listings:
        pull([])
        name = md5_of(b"b")
        Path(".dvc/cache/files/md5", name[:2], name[2:]).unlink()
        Path("results/x/sub/b.txt").unlink()
    storage = Path("../storage").resolve()
    shutil.rmtree(storage)
    line = refused(f"{storage} does not exist")
    assert "damaged" not in line and "link" not in line


@pytest.mark.parametrize("wanted", ["results/x/nothing", "../outside.txt"])
def test_what_is_not_tracked(shared, wanted):
    refused(f"no .dvc file .*{wanted}", wanted)


def test_no_dvc_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no .dvc file"):
        pull([])


@pytest.mark.parametrize("lost", ["listing", "file"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_an_object_that_is_missing_or_damaged_is_named(shared, lost, damage):
    name = name_of("results/x") if lost == "listing" else md5_of(b"b")
    path = STORE / name[:2] / name[2:]
    path.unlink()
    if damage == "damaged":
        path.write_bytes(b'[{"md5": "' + md5_of(b"a").encode() + b'", "relpath": "a.txt"}]')
    line = refused(name)
    assert ("damaged" in line) == (damage == "damaged") and "link" not in line
    assert ("results/x.dvc" if lost == "listing" else "results/x/sub/b.txt") in line
    pull(["results/y.txt"])
    assert Path("results/y.txt").read_text() == "y", "what does not need it comes"
    put(b"b")
    put(
        json.dumps(
            [{"md5": hashlib.md5(text).hexdigest(), "relpath": path} for text, path in PARTS]
        ).encode(),
        ".dir",
    )
    pull([])
    assert pulled(), "when it was restored, it comes"


PARTS = [(b"a", "a.txt"), (b"b", "sub/b.txt")]
GOOD = md5_of(b"a")
NAMES = {
    "up": "../../../outside.txt",
    "up in the middle": "sub/../../../../outside.txt",
    "absolute": "/tmp/outside.txt",
    "drive": "C:outside.txt",
    "backslash": "..\\outside.txt",
    "empty": "",
    "NUL": "a\0.txt",
    "escape": "a\x1b[2J.txt",
    "half character": "a\ud800.txt",
    "git in capitals": "sub/.GIT/config",
}
HASHES = {
    "up": "../../../../Makefile",
    "newline": GOOD + "\n",
    "folder": GOOD + ".dir",
    "number": 3,
}
ENTRY = {"md5": GOOD, "relpath": "a.txt"}
LISTINGS = {
    **{f"path: {key}": [ENTRY | {"relpath": path}] for key, path in NAMES.items()},
    **{f"hash: {key}": [ENTRY | {"md5": md5}] for key, md5 in HASHES.items()},
    "path: number": [ENTRY | {"relpath": 3}],
    "path twice": [ENTRY, ENTRY | {"md5": md5_of(b"b")}],
    "file and folder": [ENTRY, ENTRY | {"relpath": "a.txt/b"}],
    "no hash": [{"relpath": "a.txt"}],
    "not a list": ENTRY,
    "not JSON": b"[",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("key", LISTINGS)
def test_a_hostile_listing_is_refused_before_anything_is_fetched_by_it(shared, key):
    content = LISTINGS[key]
    listing = Path("listing")
    listing.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(INVALID):
        files_in_listing(listing, Path("results/x"))


def test_the_listing_of_a_tracked_folder_gives_its_files(shared):
    name = name_of("results/x")
    hashes = {Path("results/x/a.txt"): GOOD, Path("results/x/sub/b.txt"): md5_of(b"b")}
    assert files_in_listing(STORE / name[:2] / name[2:], Path("results/x")) == hashes


@pytest.mark.parametrize(("key", "honest"), [("path: up", True), ("hash: up", False)])
def test_a_hostile_listing_writes_nothing(shared, key, honest):
    """It is named by its hash, also in the .dvc file, or lies in the place of another."""
    Path("Makefile").write_text("mine")
    for place in (
        Path("../Makefile"),
        STORE.parents[1] / "Makefile",
        STORE.parents[2] / "../Makefile",
    ):
        place.write_text("hostile")  # where objects with a hash of that name would be looked for
    name = list_instead(LISTINGS[key], honest)
    line = refused("results/x.dvc")
    assert name in line and line.isprintable()
    assert not any(Path(".dvc/cache").rglob(name[2:])), "nor is it left for a later checkout"
    pull(["results/y.txt"])


def test_a_listing_that_dvc_remembers_is_not_used(shared):
    """An interrupted `dvc fetch` has read a hostile one; the storage has an honest one again."""
    whole = (STORE / name_of("results/x")[:2] / name_of("results/x")[2:]).read_bytes()
    list_instead([ENTRY | {"relpath": "../../../outside.txt"}], honest=False)
    with Repo() as repo:
        read = [key for key, _ in repo.index.data["repo"].iteritems()]
        repo.data_index.commit()
    assert ("results", "x", "..", "..", "..", "outside.txt") in read
    put(whole, ".dir")
    pull([])
    assert pulled() and OUTSIDE.read_text() == "precious"


def test_a_forged_listing_in_the_cache_is_not_used(shared):
    """As an earlier `dvc fetch` left it, read-only, which DVC takes for checked."""
    pull([])
    path = Path(".dvc/cache/files/md5", name_of("results/x")[:2], name_of("results/x")[2:])
    path.unlink()
    path.write_text(json.dumps([ENTRY | {"relpath": "../../../outside.txt"}]))
    path.chmod(0o444)
    shutil.rmtree("results/x")
    pull([])
    assert pulled() and OUTSIDE.read_text() == "precious"


def test_a_file_with_other_content_does_not_come(shared):
    path = STORE / GOOD[:2] / GOOD[2:]
    path.unlink()
    path.write_bytes(b"hostile")
    assert GOOD in refused("results/x/a.txt")


DVC_FILES = {
    "path": ("results/y.txt", {}, {"path": "../../outside.txt"}),
    "folder": ("results/y.txt", {"wdir": "../.."}, {"path": "outside.txt"}),
    "dependency": ("results/y.txt", {"deps": [{"path": "/etc/passwd"}]}, {}),
    "hash": ("results/y.txt", {}, {"md5": "../../../../Makefile"}),
    "files": (
        "results/x",
        {},
        {"md5": None, "files": [{"relpath": "../../outside.txt", "md5": GOOD}]},
    ),
    "command": ("results/y.txt", {"cmd": "touch ../outside.txt"}, {}),
}


@pytest.mark.parametrize("key", DVC_FILES)
def test_a_hostile_dvc_file_is_refused(shared, key):
    path, stage, out = DVC_FILES[key]
    assert MD5.fullmatch(md5_in(Path(f"{path}.dvc")).removesuffix(".dir"))
    change(path, out, stage)
    with pytest.raises(UserError, match=rf"^{path}.dvc "):
        md5_in(Path(f"{path}.dvc"))


def test_with_a_hostile_dvc_file_nothing_is_pulled(shared):
    Path("Makefile").write_text("mine")
    change("results/y.txt", {"path": "../../outside.txt"})
    refused("results/y.txt.dvc")


def test_a_pipeline_is_neither_run_nor_checked_out(shared):
    put(b"hostile")
    Path("dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"s": {"cmd": "touch ../ran", "outs": ["../outside.txt"]}}})
    )
    out = {"path": "../outside.txt", "md5": md5_of(b"hostile"), "hash": "md5"}
    lock = {"s": {"cmd": "touch ../ran", "outs": [out]}}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))
    with contextlib.suppress(UserError):  # DVC may refuse it
        pull([])
    assert OUTSIDE.read_text() == "precious" and not Path("../ran").exists()


def test_links_in_the_project_are_not_followed_out_of_it(shared):
    aim = Path("../aim")
    (aim / "sub").mkdir(parents=True)
    (aim / "a.txt").write_text("precious")
    Path("results/x").symlink_to(aim.absolute())
    refused("link leads out of results/x")


def test_a_link_within_the_project_is_followed(shared):
    Path("big/x").mkdir(parents=True)
    Path("results/x").symlink_to(Path("big/x").absolute())
    pull([])
    assert Path("big/x/sub/b.txt").read_text() == "b"


def test_what_a_killed_dvc_left_is_not_in_the_way(shared):
    shutil.copy(ROOT / ".dvcignore", ".")
    pull([])
    for folder in ("results/x/sub", f".dvc/cache/files/md5/{GOOD[:2]}"):
        Path(folder, tmp_fname()).write_text("half")
    Path(".dvc/tmp/rwlock").write_text("")
    Path("results/x/a.txt").unlink()
    pull([])
    assert pulled()


def test_passwords_in_addresses_are_not_told(shared, caplog, capfd):
    with Repo() as repo, repo.config.edit("local") as config:
        config["remote"]["storage"] = {"url": "http://user:secret@127.0.0.1:9/storage?key=hidden"}
    line = refused("results/x.dvc")
    printed = line + caplog.text + "".join(capfd.readouterr())
    assert "secret" not in printed and "hidden" not in printed

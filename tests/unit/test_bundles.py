"""Bundles: what they hold, how they are compared, and which are refused.

Their tables are computed again and ranked together; hostile ones are refused.
"""

import io
import json
import re
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from rib.base.errors import UserError
from rib.config.run import Run
from rib.records import provenance
from rib.reporting import compare as comparison
from rib.reporting.bundle import FACTS, FORMULA, RECORDS, write_bundle
from rib.reporting.settings import RankingStatistics
from tiny.bundles import forged, make
from tiny.parquet import repeated_by_deltas, understated
from tiny.tiers import examples

pytestmark = pytest.mark.thorough

STATISTICS = RankingStatistics(replicates=100, confidence=0.95, seed=0)
ROWS = "results/tiny/paper/evaluate/m/red/ft/all/0/tiny.parquet"
TABLES = "reports/tiny/tables"
MRI = "reports/tiny/tables/mri.csv"
RECORD_OF_TABLES = "reports/tiny/tables/provenance.json"
RECORD_OF_PAGE = "reports/tiny/index.provenance.json"
TABLES_OF_BUNDLE = 12
FILE_MODE = 0o644  # of entries of archives
LINK_MODE = 0o120777
attack = pytest.mark.attack("bundles")


@dataclass(frozen=True)
class Bundles:
    """Bundles of small grids; see the fixture `bundles`."""

    first: Path
    second: Path
    third: Path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles with one method in common, and a third whose images of `blue` differ."""
    folder = tmp_path_factory.mktemp("bundles")
    return Bundles(
        first=make(folder / "first", {"ft": -0.3, "lwf": 0.1}),
        second=make(
            folder / "second",
            {"lora": 0.4, "lwf": 0.1},
            config={"training": {"epochs": 3, "lr": 0.1, "a<b>": "=1+1"}},
        ),
        third=make(
            folder / "third",
            {"ft": -0.3},
            datasets={"red": 0, "green": 1, "blue": 7},
            targets=("red", "blue"),
        ),
    )


def project_of(bundle):
    """The folder of the project that a bundle was made of."""
    return bundle.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths are relative to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Comparison:
    """What `compare` writes: tables and a page."""

    ranking: pd.DataFrame
    settings: pd.DataFrame
    claims: pd.DataFrame
    page: str


def compare(*bundles):
    """Compare bundles in the current folder; gives what was written."""
    folder = Path("reports/compare")
    comparison.compare(
        bundles=[str(bundle) for bundle in bundles],
        statistics=STATISTICS,
        log_file="logs/compare.log",
        folder=folder,
    )
    return Comparison(
        ranking=pd.read_csv(folder / "ranking.csv"),
        settings=pd.read_csv(folder / "settings.csv"),
        claims=pd.read_csv(folder / "claims.csv"),
        page=(folder / "index.html").read_text(),
    )


@pytest.fixture(scope="module")
def compared(bundles, tmp_path_factory):
    """Tables and page of the comparison of the first two bundles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("compared"))
        return compare(bundles.first, bundles.second)


def contents_of(bundle):
    """The bytes of each file of a bundle, by name."""
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# What a bundle holds


def test_a_bundle_has_no_weights_and_no_images_and_the_same_bytes_again(bundles):
    # given
    contents = contents_of(bundles.first)
    assert {MRI, ROWS, "reports/tiny/index.html"} <= contents.keys()
    for name in contents:
        assert not name.endswith((".safetensors", ".npy", ".npz"))
    facts = json.loads(contents[FACTS])
    assert facts["config"]["methods"] == ["ft", "lwf"]
    # when it is written again from what it says of itself
    not_listed = {FACTS, RECORDS, *facts["rows"]}
    second_bundle = Path("again.zip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project_of(bundles.first))
        write_bundle(
            rows=[Path(name) for name in facts["rows"]],
            more=[Path(name) for name in contents if name not in not_listed],
            records=provenance.from_lines(contents[RECORDS].decode()),
            config=facts["config"],
            bundle=second_bundle,
        )
        # then
        assert second_bundle.read_bytes() == bundles.first.read_bytes()


# Comparison


def test_methods_of_both_are_ranked_by_the_mri_of_their_own_tables(bundles, compared):
    ranking = compared.ranking.set_index(["bundle", "method"])
    assert set(ranking.index) == {
        ("first.tiny", "ft"),
        ("first.tiny", "lwf"),
        ("second.tiny", "lora"),
        ("second.tiny", "lwf"),
    }
    assert ranking["mri"].is_monotonic_decreasing
    for name, bundle in {"first.tiny": bundles.first, "second.tiny": bundles.second}.items():
        table_of_bundle = pd.read_csv(project_of(bundle) / MRI).set_index("method")
        for method, mri in table_of_bundle["mri"].items():
            assert ranking.loc[(name, method), "mri"] == pytest.approx(mri, abs=1e-6)
    letters = ranking["letters"].map(set)
    assert letters["first.tiny", "lwf"] & letters["second.tiny", "lwf"], (
        "the same rows are not told apart"
    )
    assert not letters["first.tiny", "ft"] & letters["second.tiny", "lora"], "far apart"


def test_what_differs_and_what_was_checked_is_listed(compared):
    settings = compared.settings.set_index("setting")
    assert set(settings.index) == {
        "config.methods",
        "config.training.epochs",
        "config.training.lr",
        "config.training.a<b>",
    }
    assert settings.loc["config.methods", "first.tiny"] == '["ft", "lwf"]'
    assert settings.loc["config.training.a<b>", "second.tiny"] == '"=1+1"'

    claims = compared.claims
    assert {"accuracy.csv", "ri.csv", "mri.csv", "ranking.csv"} <= set(claims["table"])
    assert len(claims) == 2 * TABLES_OF_BUNDLE
    assert (claims["largest difference"] == 0).all()
    assert claims["numbers"].sum() > 500

    assert "a consistent forgery passes" in compared.page
    assert "a&lt;b&gt;" in compared.page
    assert "<b>" not in compared.page
    assert "<script" not in compared.page


def test_only_what_is_shared_is_ranked(bundles):
    """Of the first and the third the target red and, for its RI, green; blue is other images."""
    # when
    compared = compare(bundles.first, bundles.third)
    # then
    ranking = compared.ranking.set_index(["bundle", "method"])
    assert set(ranking.index) == {("first.tiny", "ft"), ("first.tiny", "lwf"), ("third.tiny", "ft")}
    accuracy = pd.read_csv(project_of(bundles.first) / TABLES / "accuracy.csv")
    on_green = accuracy[accuracy["dataset"] == "green"].set_index(["method", "target"])["accuracy"]
    change = on_green["ft", "red"] - on_green["pretrained", "none"]
    assert ranking.loc[("first.tiny", "ft"), "mri"] == pytest.approx(change, abs=1e-6)
    for not_shared in ("dataset blue", "target green", "target blue"):
        assert f"The {not_shared} is left out" in compared.page


def test_merges_over_seeds_that_are_not_shared_are_left_out():
    """A merge over seeds has a run of the first seed only."""
    soup = Run("m", "red", "soup", "all", 0)
    first_seed = Run("m", "red", "ft", "all", 0)
    second_seed = Run("m", "red", "ft", "all", 1)
    runs = {soup, first_seed, second_seed}
    assert comparison.over_other_seeds(runs, {0}) == ["soup"]
    assert comparison.over_other_seeds(runs, {1}) == ["soup"]
    assert comparison.over_other_seeds(runs, {0, 1}) == []
    assert comparison.over_other_seeds({soup, first_seed}, {0}) == []


def test_bundles_that_share_nothing_are_checked_and_not_ranked(bundles, tmp_path):
    other = make(tmp_path / "other", {"ft": 0.1}, {"red": 5, "green": 6})
    compared = compare(bundles.first, other)
    assert compared.ranking.empty
    assert set(compared.claims["bundle"]) == {"first.tiny", "other.tiny"}
    assert "are not ranked together" in compared.page


# Names of bundles


def empty_files(paths):
    """Empty files; gives their paths."""
    files = [Path(path) for path in paths]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.rib.zip", "b.rib.zip"], ["a", "b"]),
        (
            ["ours/x.rib.zip", "their results/x.rib.zip", "y.rib.zip"],
            ["ours.x", "their_results.x", "y"],
        ),
        # the nearest folder that differs, as in reports/<family>/ of two projects
        (["ours/reports/x/x.rib.zip", "theirs/reports/x/x.rib.zip"], ["ours.x", "theirs.x"]),
        (["a/x.rib.zip", "b/x.rib.zip", "x.2.rib.zip"], ["a.x", "b.x", "x.2"]),
    ],
)
def test_bundles_of_one_file_name_are_told_apart_by_their_folders(paths, names):
    assert comparison.names_of(empty_files(paths)) == names


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["ours/x.rib.zip", "ours/x.rib.zip"], "same file"),
        (
            ["a/x.rib.zip", "b/x.rib.zip", "a.x.rib.zip"],
            "a.x.rib.zip would both be called a.x; rename",
        ),
        (["a b/x.rib.zip", "a_b/x.rib.zip"], "rename"),
    ],
)
def test_bundles_that_cannot_be_told_apart_are_refused(paths, reason):
    first_path, *_ = paths
    with pytest.raises(UserError, match=f"^config, bundles: {first_path} and .*{reason}"):
        comparison.names_of(empty_files(paths))


def refused(bundle):
    """The message about a bundle, which is one sentence and leaves nothing behind."""
    with pytest.raises(UserError) as error:
        compare(bundle)
    message = str(error.value)
    assert "\n" not in message
    assert not Path("reports").exists()
    assert not list(Path("work").glob("compare*/*"))
    return message


@pytest.mark.parametrize("names", [[], ["missing.rib.zip"]])
def test_bundles_that_are_not_there_are_named(names):
    named = names[0] if names else "no bundles"
    with pytest.raises(UserError, match=f"bundles: {named}.*--config"):
        compare(*names)


# Forged files: functions that change the bytes of a bundle's files, by name, in place.


def without(name):
    """Forgery: a file is missing."""

    def forge(files):
        del files[name]

    return forge


def with_file(name):
    """Forgery: there is one file more."""

    def forge(files):
        files[name] = b"x"

    return forge


def with_content(name, content):
    """Forgery: a file has this content."""

    def forge(files):
        files[name] = content

    return forge


def replaced(name, old, new):
    """Forgery: in a file, the first of these bytes are others."""

    def forge(files):
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return forge


def with_first_negative_number(name, number):
    """Forgery: in a table, the first negative number is another."""

    def forge(files):
        files[name] = re.sub(rb"-\d+\.\d+", number, files[name], count=1)

    return forge


def without_last_line(name):
    """Forgery: a table lacks its last line."""

    def forge(files):
        lines = files[name].splitlines(keepends=True)
        files[name] = b"".join(lines[:-1])

    return forge


def parquet_of(table, **choices):
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, **choices)
    return buffer.getvalue()


def with_rows(change):
    """Forgery: one run has other rows, which a function makes of its rows."""

    def forge(files):
        rows = pd.read_parquet(io.BytesIO(files[ROWS]))
        files[ROWS] = parquet_of(change(rows))

    return forge


def with_column(name, make_column):
    """Forgery: rows have another column, which a function makes of them."""
    return with_rows(lambda rows: rows.assign(**{name: make_column(rows)}))


def with_constant(name, value):
    """Forgery: a column of the rows has one value."""
    return with_rows(lambda rows: rows.assign(**{name: value}))


def twice_the_first(rows):
    """The first row stands at the end again."""
    return pd.concat([rows, rows[:1]])


def numbered_from_one(rows):
    """Numbers of images, each of which is that of the next."""
    return rows["row"] + 1


def lists_of_names(rows):
    """In each row a list, in place of a dataset's name."""
    return [["red"]] * len(rows)


def without_ranks(rows):
    """A column is missing."""
    return rows.drop(columns="rank")


def first_700_000_times(rows):
    """Many rows that take little space."""
    return rows.iloc[[0] * 700_000]


def with_facts(**facts):
    """Forgery: bundle.json states other facts."""

    def forge(files):
        stated_facts = json.loads(files[FACTS])
        files[FACTS] = json.dumps({**stated_facts, **facts}).encode()

    return forge


# Forged records: functions that change a bundle's records, by name, in place.


def with_settings(**settings):
    """Forgery: the tables' job had other settings."""

    def forge(records):
        records[RECORD_OF_TABLES]["cfg"].update(settings)

    return forge


def with_statistics(**statistics):
    """Forgery: the tables' job had other settings of statistics."""

    def forge(records):
        records[RECORD_OF_TABLES]["cfg"]["ri"].update(statistics)

    return forge


def with_label(text):
    """Forgery: a method has another label."""

    def forge(records):
        records[RECORD_OF_PAGE]["cfg"]["about"]["methods"]["ft"]["label"] = text

    return forge


def with_hash(group, name):
    """Forgery: the record of the tables' job has another hash of a file.

    Args:
        group: inputs or outputs.
    """

    def forge(records):
        records[RECORD_OF_TABLES][group][name] = 64 * "0"

    return forge


# Bundles that are refused


def test_a_bundle_of_another_version_is_one_sentence(bundles):
    message = refused(forged(bundles.first, with_facts(version=1)))
    assert "bundle of version 1; make one of version 3" in message


# What is forged, and what is said of it.
FILES = {
    "a path out of the folder": (with_file("../outside"), "points outside"),
    "an absolute path": (with_file("/tmp/rib-outside"), "points outside"),
    "a file without a record": (with_file("results/more.csv"), "not what its record names"),
    "a missing file": (without(ROWS), "missing"),
    "a number": (with_first_negative_number(MRI, b"12.5"), "mri.csv does not follow"),
    "a huge number": (with_first_negative_number(MRI, b"-1e999"), "mri.csv does not follow"),
    "a line less": (without_last_line(MRI), "mri.csv does not follow"),
    "a formula": (replaced(MRI, b",ft,", b",=1+1,"), "begins as a formula"),
    "a table of many columns": (
        with_content(MRI, b"a," * 2000 + b"a\n"),
        "mri.csv has 2001 columns",
    ),
    "a line of many cells": (
        with_content(MRI, b"a\n" + b"," * 2000 + b"\n"),
        "mri.csv has 2001 columns",
    ),
    "better rows": (with_constant("rank", 0), "does not follow"),
    "rows twice": (with_rows(twice_the_first), "twice"),
    "rows of another run": (with_constant("method", "lwf"), "another run"),
    "rows of no image": (with_column("row", numbered_from_one), "of no image"),
    "rows of texts": (with_constant("row", "a"), "damaged or forged"),
    "rows without a column": (with_rows(without_ranks), "damaged or forged"),
    "rows that are not Parquet": (
        with_content(ROWS, b"PAR1" + bytes(99) + b"PAR1"),
        "damaged or forged",
    ),
    "a Parquet bomb": (with_rows(first_700_000_times), "unpacks to 700000 rows"),
    "a text that each row repeats": (
        with_constant("dataset", 9_999_999 * "r"),
        "unpacks to 12000",
    ),
    "bytes that each row repeats": (
        with_constant("dataset", 99_999 * b"r"),
        "column 'dataset' of another",
    ),
    "rows with lists": (
        with_column("dataset", lists_of_names),
        "column 'dataset' of another type",
    ),
    "what a terminal obeys": (with_facts(version="\x1b[2J"), r"version '\x1b[2J'"),
    "a missing file that a terminal obeys": (
        with_facts(rows=["\x1b[2J"]),
        r"'\x1b[2J' is missing",
    ),
    "classes that are a list": (
        with_content("results/tiny/prepare/red/160px/classes.json", b"[1]"),
        "damaged or forged",
    ),
    "a bundle.json that is a list": (with_content(FACTS, b"[]"), "damaged or forged"),
    "a deep bundle.json": (with_content(FACTS, b"[" * 100_000), "damaged or forged"),
    "another configuration": (with_facts(config={"reference": None}), "configuration"),
    "a key as a formula": (with_facts(config={"=1+1": 1}), "configuration"),
    "rows in a file that is not checked as such": (
        with_facts(rows=[MRI]),
        "is no Parquet file",
    ),
    "rows elsewhere": (with_facts(rows=["../../../../etc/passwd"]), "missing"),
    "no bundle": (without(FACTS), "not a bundle"),
}
# One of each kind: paths, files, numbers, rows, Parquet, texts, facts.
FORGERIES = {
    "a path out of the folder",
    "a file without a record",
    "a number",
    "rows of another run",
    "rows of no image",
    "a Parquet bomb",
    "rows with lists",
    "what a terminal obeys",
    "a deep bundle.json",
    "another configuration",
}


@attack
@pytest.mark.parametrize(("forge", "message"), examples(FILES, FORGERIES))
def test_files_that_do_not_belong_are_refused(bundles, forge, message):
    assert message in refused(forged(bundles.first, forge))
    assert not Path("/tmp/rib-outside").exists()


LONG_TEXT = "r" * (2 << 20)


def texts_that_repeat_the_one_before(rows):
    """Bytes of a Parquet file with a long text in each row, which takes no space."""
    table = pa.table(rows.assign(dataset=LONG_TEXT))
    return repeated_by_deltas(table, "dataset")


def text_that_the_footer_understates(rows):
    """Bytes of a Parquet file with a long text in the last row, which its footer calls small."""
    names = [*rows["dataset"][1:], 60 * LONG_TEXT]
    return understated(parquet_of(rows.assign(dataset=names), compression="zstd"))


@pytest.mark.attack("memory")
@pytest.mark.parametrize(
    "make",
    [texts_that_repeat_the_one_before, text_that_the_footer_understates],
    ids=[
        "texts of which each repeats the one before",
        "a long text that the footer understates",
    ],
)
def test_a_small_bundle_is_refused_before_its_rows_take_memory(bundles, arrow_peak, make):
    # given
    rows = pd.read_parquet(io.BytesIO(contents_of(bundles.first)[ROWS]))
    bundle = forged(bundles.first, with_content(ROWS, make(rows)))
    assert bundle.stat().st_size < 1 << 20
    peak_before = arrow_peak()
    # when
    message = refused(bundle)
    # then
    assert "tiny.parquet" in message
    assert arrow_peak() <= max(peak_before, 100 << 20)


# What is forged in the records, and what is said of it.
RECORDS_FORGED = {
    "markup in a label": (with_label("<script>alert(1)</script>"), "has markup"),
    "a formula in a label": (with_label("@SUM(A1)"), "begins as a formula"),
    "no label": (with_label(None), "damaged or forged"),
    "too many replicates": (with_statistics(replicates=10**15), "out of bounds"),
    "a number of 400 digits": (with_statistics(seed=10**400), "does not follow"),
    "a level that is not a number": (
        with_statistics(confidence=float("nan")),
        "out of bounds",
    ),
    "a formula as conditions": (
        with_settings(conditions="=HYPERLINK(1)"),
        "begins as a formula",
    ),
    "another level": (with_statistics(confidence=0.5), "does not follow"),
    "no view": (with_settings(view=None), "GridTableSettings: view"),
    "no job of the tables": (without(RECORD_OF_TABLES), "damaged or forged"),
    "an output elsewhere": (with_hash("outputs", "../x"), "damaged"),
    "an input that is not what its maker made": (
        with_hash("inputs", ROWS),
        f"records contradict each other about {ROWS}",
    ),
}


@attack
@pytest.mark.parametrize(("forge", "message"), RECORDS_FORGED.values(), ids=RECORDS_FORGED.keys())
def test_records_that_are_hostile_are_refused(bundles, forge, message):
    assert message in refused(forged(bundles.first, records=forge))


def write_zip(path, contents):
    """Write a zip archive of files by name; gives its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return Path(path)


@attack
def test_files_and_records_that_disagree_are_refused(bundles):
    other_number = replaced(MRI, b".", b".1")
    bundle = forged(bundles.first, other_number, consistent=False)
    assert "not what its record names" in refused(bundle)

    contents = contents_of(bundles.first)
    other_time = replaced(RECORDS, b'"seconds": 1.0', b'"seconds": 2.0')
    other_time(contents)
    assert "damaged" in refused(write_zip("damaged.rib.zip", contents))


@attack
def test_links_and_what_is_packed_too_well_are_refused(bundles):
    # a file that is there twice
    shutil.copy(bundles.first, "twice.rib.zip")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile("twice.rib.zip", "a") as archive,
    ):
        archive.writestr(MRI, archive.read(MRI))
    assert "twice" in refused(Path("twice.rib.zip"))

    # a link in a zip
    contents = contents_of(bundles.first)
    contents[MRI] = b"/etc/passwd"
    with zipfile.ZipFile("link.rib.zip", "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)
            mode = LINK_MODE if name == MRI else FILE_MODE
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    assert "not what its record names" in refused(Path("link.rib.zip"))

    # bytes that are packed too well
    with zipfile.ZipFile("bomb.rib.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, bytes(50_000_000))
    assert "more than" in refused(Path("bomb.rib.zip"))

    # a link in a tar
    link = tarfile.TarInfo(FACTS)
    link.type = tarfile.SYMTYPE
    link.linkname = "/etc/passwd"
    with tarfile.open("tar.rib.zip", "w") as archive:
        archive.addfile(link)
    assert "link" in refused(Path("tar.rib.zip"))


@attack
@pytest.mark.parametrize("text", ["=1", "+1a", "-a", "@a", "\ta"])
def test_formulas_are_known(text):
    assert FORMULA.match(text)
    assert not FORMULA.match(f"a{text}")


# Claims

COMPUTED = "method,mri,letters\nft,12.345678,a\nlwf,,b\n"


def difference_of(folder, claimed):
    """How a claimed table differs from what was computed from the rows."""
    claimed_file = folder / "mri.csv"
    computed_file = folder / "again.csv"
    claimed_file.write_text(claimed)
    computed_file.write_text(COMPUTED)
    return comparison.difference(claimed_file, computed_file)


@pytest.mark.parametrize(
    "claimed",
    [
        COMPUTED.replace("ft", "lora"),
        COMPUTED.replace(",b", ",a"),
        COMPUTED.replace("12.345678", ""),
        COMPUTED.replace("12.345678", "nan"),
        COMPUTED.replace("12.345678", "12.345698"),
        COMPUTED.replace("lwf,,", "lwf,0.0,"),
    ],
    ids=[
        "a name",
        "a letter",
        "no number",
        "not a number",
        "another number",
        "a number where there is none",
    ],
)
def test_a_claim_that_does_not_follow_is_refused_whatever_its_kind(tmp_path, claimed):
    with pytest.raises(UserError, match="mri.csv does not follow from the rows: line [23]"):
        difference_of(tmp_path, claimed)


def test_numbers_that_differ_by_rounding_are_the_same_claim(tmp_path):
    rounded = COMPUTED.replace("12.345678", "12.345679")
    lines, numbers, largest_difference = difference_of(tmp_path, rounded)
    assert lines == 2
    assert numbers == 1
    assert largest_difference == pytest.approx(1e-6)

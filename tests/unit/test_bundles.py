"""Bundles: what they hold, how they are compared, and which are refused.

Their tables are computed again and ranked together; hostile ones are refused.
"""

import io
import json
import re
import shutil
import tarfile
import zipfile
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

STATISTICS = RankingStatistics(replicates=100, confidence=0.95, seed=0)
ROWS = "results/tiny/paper/evaluate/m/red/ft/all/0/tiny.parquet"
MRI = "reports/tiny/tables/mri.csv"
METRICS, PAGE = "reports/tiny/tables/provenance.json", "reports/tiny/index.provenance.json"
LONG = "r" * (2 << 20)
attack = pytest.mark.attack("bundles")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles with one method in common, and a third whose images of `blue` differ."""
    folder = tmp_path_factory.mktemp("bundles")
    first = make(folder / "first", {"ft": -0.3, "lwf": 0.1})
    second = make(
        folder / "second",
        {"lora": 0.4, "lwf": 0.1},
        config={"training": {"epochs": 3, "lr": 0.1, "a<b>": "=1+1"}},
    )
    third = make(
        folder / "third", {"ft": -0.3}, {"red": 0, "green": 1, "blue": 7}, targets=("red", "blue")
    )
    return first, second, third


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compare(*bundles):
    comparison.compare(
        bundles=list(map(str, bundles)),
        statistics=STATISTICS,
        log_file="logs/compare.log",
        folder=Path("reports/compare"),
    )
    return {
        name: pd.read_csv(f"reports/compare/{name}.csv")
        for name in ("ranking", "settings", "claims")
    }


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory):
    """Tables and page of the comparison of the first two bundles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("compared"))
        return compare(*made[:2]), Path("reports/compare/index.html").read_text()


def test_a_bundle_has_no_weights_and_no_images_and_the_same_bytes_again(made):
    with zipfile.ZipFile(made[0]) as archive:
        names = archive.namelist()
        facts, lines = json.loads(archive.read(FACTS)), archive.read(RECORDS).decode()
    assert not [name for name in names if name.endswith((".safetensors", ".npy", ".npz"))]
    assert {MRI, ROWS, "reports/tiny/index.html"} <= {*names} and facts["config"]["methods"] == [
        "ft",
        "lwf",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made[0].parent)
        rows = list(map(Path, facts["rows"]))
        more = [Path(name) for name in names if name not in (FACTS, RECORDS, *facts["rows"])]
        records = provenance.from_lines(lines)
        write_bundle(
            rows=rows, more=more, records=records, config=facts["config"], bundle=Path("again.zip")
        )
        assert Path("again.zip").read_bytes() == made[0].read_bytes()


def test_methods_of_both_are_ranked_by_the_mri_of_their_own_tables(made, compared):
    ranking = compared[0]["ranking"].set_index(["bundle", "method"])
    assert set(ranking.index) == {
        ("first.tiny", "ft"),
        ("first.tiny", "lwf"),
        ("second.tiny", "lora"),
        ("second.tiny", "lwf"),
    }
    assert ranking["mri"].is_monotonic_decreasing
    for bundle in made[:2]:
        own = pd.read_csv(bundle.parent / MRI).set_index("method")["mri"]
        for method, mri in own.items():
            assert ranking.loc[(f"{bundle.parent.name}.tiny", method), "mri"] == pytest.approx(
                mri, abs=1e-6
            )
    letters = ranking["letters"].map(set)
    assert letters["first.tiny", "lwf"] & letters["second.tiny", "lwf"], (
        "the same rows are not told apart"
    )
    assert not letters["first.tiny", "ft"] & letters["second.tiny", "lora"], "far apart"


def test_what_differs_and_what_was_checked_is_listed(compared):
    tables, page = compared
    settings = tables["settings"].set_index("setting")
    assert set(settings.index) == {
        "config.methods",
        *(f"config.training.{key}" for key in ("epochs", "lr", "a<b>")),
    }
    assert (
        settings.loc["config.methods", "first.tiny"] == '["ft", "lwf"]'
        and settings.loc["config.training.a<b>", "second.tiny"] == '"=1+1"'
    )
    claims = tables["claims"]
    assert {"accuracy.csv", "ri.csv", "mri.csv", "ranking.csv"} <= set(claims["table"]) and len(
        claims
    ) == 2 * 12
    assert (claims["largest difference"] == 0).all() and claims["numbers"].sum() > 500
    assert (
        "a consistent forgery passes" in page
        and "a&lt;b&gt;" in page
        and "<b>" not in page
        and "<script" not in page
    )


def test_only_what_is_shared_is_ranked(made):
    """Of the first and the third the target red and, for its RI, green; blue is other images."""
    ranking = compare(made[0], made[2])["ranking"].set_index(["bundle", "method"])
    assert set(ranking.index) == {("first.tiny", "ft"), ("first.tiny", "lwf"), ("third.tiny", "ft")}
    accuracy = pd.read_csv(made[0].parent / "reports/tiny/tables/accuracy.csv")
    on_green = accuracy[accuracy["dataset"] == "green"].set_index(["method", "target"])["accuracy"]
    change = on_green["ft", "red"] - on_green["pretrained", "none"]
    assert ranking.loc[("first.tiny", "ft"), "mri"] == pytest.approx(change, abs=1e-6)
    page = Path("reports/compare/index.html").read_text()
    assert all(
        f"The {what} is left out" in page
        for what in ("dataset blue", "target green", "target blue")
    )


def test_merges_over_seeds_that_are_not_shared_are_left_out():
    """A merge over seeds has a run of the first seed only."""
    runs = {Run("m", "red", "ft", "all", seed) for seed in (0, 1)} | {
        Run("m", "red", "soup", "all", 0)
    }
    assert (
        comparison.over_other_seeds(runs, {0}) == comparison.over_other_seeds(runs, {1}) == ["soup"]
    )
    assert comparison.over_other_seeds(runs, {0, 1}) == []
    assert comparison.over_other_seeds({run for run in runs if run.seed == 0}, {0}) == []


def test_bundles_that_share_nothing_are_checked_and_not_ranked(made, tmp_path):
    other = make(tmp_path / "other", {"ft": 0.1}, {"red": 5, "green": 6})
    found = compare(made[0], other)
    assert not len(found["ranking"]) and set(found["claims"]["bundle"]) == {
        "first.tiny",
        "other.tiny",
    }
    assert "are not ranked together" in Path("reports/compare/index.html").read_text()


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
    assert comparison.names_of(files(*paths)) == names


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["ours/x.rib.zip", "ours/x.rib.zip"], "same file"),
        (
            ["a/x.rib.zip", "b/x.rib.zip", "a.x.rib.zip"],
            "a.x.rib.zip would both be called a.x; rename",
        ),
        (["a b/x.rib.zip", "a_b/x.rib.zip"], "rename"),
    ],
)
def test_bundles_that_cannot_be_told_apart_are_refused(paths, why):
    with pytest.raises(UserError, match=f"^config, bundles: {paths[0]} and .*{why}"):
        comparison.names_of(files(*paths))


def files(*paths):
    """Empty files."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return list(map(Path, paths))


def refused(path):
    """The message about a bundle, which is one sentence and leaves nothing behind."""
    with pytest.raises(UserError) as error:
        compare(path)
    assert (
        "\n" not in str(error.value)
        and not Path("reports").exists()
        and not list(Path("work").glob("compare*/*"))
    )
    return str(error.value)


@pytest.mark.parametrize("names", [[], ["missing.rib.zip"]])
def test_bundles_that_are_not_there_are_named(names):
    with pytest.raises(
        UserError, match=f"bundles: {names[0] if names else 'no bundles'}.*--config"
    ):
        compare(*names)


def edit(name, change):
    """A change of one file."""
    return lambda files: files.__setitem__(name, change(files[name]))


def table(change):
    """A change of the rows of one run."""

    def changed(data):
        packed = io.BytesIO()
        change(pd.read_parquet(io.BytesIO(data))).to_parquet(packed)
        return packed.getvalue()

    return edit(ROWS, changed)


def fact(**values):
    """A change of bundle.json."""
    return edit(FACTS, lambda data: json.dumps(json.loads(data) | values).encode())


def setting(**values):
    """A change of the settings of the tables' job."""
    return lambda records: records[METRICS]["cfg"].update(values)


def of_statistics(**values):
    """A change of the statistics in the settings of the tables' job."""
    return lambda records: records[METRICS]["cfg"]["ri"].update(values)


def label(text):
    """A change of a method's label."""
    return lambda records: records[PAGE]["cfg"]["about"]["methods"]["ft"].update(label=text)


def test_a_bundle_of_another_version_is_one_sentence(made):
    assert re.search(
        "bundle of version 1; make one of version 2", refused(forged(made[0], fact(version=1)))
    )


FILES = {
    "a path out of the folder": (
        lambda files: files.update({"../outside": b"x"}),
        "points outside",
    ),
    "an absolute path": (lambda files: files.update({"/tmp/rib-outside": b"x"}), "points outside"),
    "a file without a record": (
        lambda files: files.update({"results/more.csv": b"x"}),
        "not what its record names",
    ),
    "a missing file": (lambda files: files.pop(ROWS), "missing"),
    "a number": (
        edit(MRI, lambda data: re.sub(rb"-\d+\.\d+", b"12.5", data, count=1)),
        "mri.csv does not follow",
    ),
    "a huge number": (
        edit(MRI, lambda data: re.sub(rb"-\d+\.\d+", b"-1e999", data, count=1)),
        "mri.csv does not follow",
    ),
    "a line less": (
        edit(MRI, lambda data: data[: data.rstrip().rindex(b"\n") + 1]),
        "mri.csv does not follow",
    ),
    "a formula": (
        edit(MRI, lambda data: data.replace(b",ft,", b",=1+1,", 1)),
        "begins as a formula",
    ),
    "a table of many columns": (
        edit(MRI, lambda data: b"a," * 2000 + b"a\n"),
        "mri.csv has 2001 columns",
    ),
    "a line of many cells": (
        edit(MRI, lambda data: b"a\n" + b"," * 2000 + b"\n"),
        "mri.csv has 2001 columns",
    ),
    "better rows": (table(lambda rows: rows.assign(rank=0)), "does not follow"),
    "rows twice": (table(lambda rows: pd.concat([rows, rows[:1]])), "twice"),
    "rows of another run": (table(lambda rows: rows.assign(method="lwf")), "another run"),
    "rows of no image": (table(lambda rows: rows.assign(row=rows["row"] + 1)), "of no image"),
    "rows of texts": (table(lambda rows: rows.assign(row="a")), "damaged or forged"),
    "rows without a column": (table(lambda rows: rows.drop(columns="rank")), "damaged or forged"),
    "rows that are not Parquet": (
        edit(ROWS, lambda data: b"PAR1" + bytes(99) + b"PAR1"),
        "damaged or forged",
    ),
    "a Parquet bomb": (table(lambda rows: rows.iloc[[0] * 700_000]), "unpacks to 700000 rows"),
    "a text that each row repeats": (
        table(lambda rows: rows.assign(dataset=9_999_999 * "r")),
        "unpacks to 12000",
    ),
    "bytes that each row repeats": (
        table(lambda rows: rows.assign(dataset=99_999 * b"r")),
        "column 'dataset' of another",
    ),
    "rows with lists": (
        table(lambda rows: rows.assign(dataset=[["red"]] * len(rows))),
        "column 'dataset' of another type",
    ),
    "what a terminal obeys": (fact(version="\x1b[2J"), r"version '\x1b[2J'"),
    "a missing file that a terminal obeys": (fact(rows=["\x1b[2J"]), r"'\x1b[2J' is missing"),
    "classes that are a list": (
        edit("results/tiny/prepare/red/160px/classes.json", lambda _: b"[1]"),
        "damaged or forged",
    ),
    "a bundle.json that is a list": (edit(FACTS, lambda _: b"[]"), "damaged or forged"),
    "a deep bundle.json": (edit(FACTS, lambda _: b"[" * 100_000), "damaged or forged"),
    "another configuration": (fact(config={"reference": None}), "configuration"),
    "a key as a formula": (fact(config={"=1+1": 1}), "configuration"),
    "rows in a file that is not checked as such": (fact(rows=[MRI]), "is no Parquet file"),
    "rows elsewhere": (fact(rows=["../../../../etc/passwd"]), "missing"),
    "no bundle": (lambda files: files.pop(FACTS), "not a bundle"),
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
@pytest.mark.parametrize(("files", "said"), examples(FILES, FORGERIES))
def test_files_that_do_not_belong_are_refused(made, files, said):
    assert said in refused(forged(made[0], files))
    assert not Path("/tmp/rib-outside").exists()


SMALL = {
    "texts of which each repeats the one before": lambda rows: repeated_by_deltas(
        pa.table(rows.assign(dataset=LONG)), "dataset"
    ),
    "a long text that the footer understates": lambda rows: understated(
        compressed(rows.assign(dataset=[*rows["dataset"][1:], 60 * LONG]))
    ),
}


def compressed(rows):
    packed = io.BytesIO()
    rows.to_parquet(packed, compression="zstd")
    return packed.getvalue()


@pytest.mark.attack("memory")
@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())
def test_a_small_bundle_is_refused_before_its_rows_take_memory(made, arrow_peak, make):
    hostile = forged(made[0], edit(ROWS, lambda data: make(pd.read_parquet(io.BytesIO(data)))))
    before = arrow_peak()
    said = refused(hostile)
    assert hostile.stat().st_size < 1 << 20 and "tiny.parquet" in said
    assert arrow_peak() <= max(before, 100 << 20)


SETTINGS = {
    "markup in a label": (label("<script>alert(1)</script>"), "has markup"),
    "a formula in a label": (label("@SUM(A1)"), "begins as a formula"),
    "no label": (label(None), "damaged or forged"),
    "too many replicates": (of_statistics(replicates=10**15), "out of bounds"),
    "a number of 400 digits": (of_statistics(seed=10**400), "does not follow"),
    "a level that is not a number": (of_statistics(confidence=float("nan")), "out of bounds"),
    "a formula as conditions": (setting(conditions="=HYPERLINK(1)"), "begins as a formula"),
    "another level": (of_statistics(confidence=0.5), "does not follow"),
    "no view": (setting(view=None), "GridTableSettings: view"),
    "no job of the tables": (lambda records: records.pop(METRICS), "damaged or forged"),
    "an output elsewhere": (
        lambda records: records[METRICS]["outputs"].update({"../x": 64 * "0"}),
        "damaged",
    ),
    "an input that is not what its maker made": (
        lambda records: records[METRICS]["inputs"].update({ROWS: 64 * "0"}),
        f"records contradict each other about {ROWS}",
    ),
}


@attack
@pytest.mark.parametrize(("records", "said"), SETTINGS.values(), ids=SETTINGS.keys())
def test_records_that_are_hostile_are_refused(made, records, said):
    assert said in refused(forged(made[0], records=records))


@attack
def test_files_and_records_that_disagree_are_refused(made):
    changed = edit(MRI, lambda data: data.replace(b".", b".1", 1))
    assert "not what its record names" in refused(forged(made[0], changed, consistent=False))
    damaged = edit(RECORDS, lambda data: data.replace(b'"seconds": 1.0', b'"seconds": 2.0', 1))
    with zipfile.ZipFile(made[0]) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    damaged(found)
    with zipfile.ZipFile("damaged.rib.zip", "w") as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    assert "damaged" in refused(Path("damaged.rib.zip"))


@attack
def test_links_and_what_is_packed_too_well_are_refused(made, tmp_path):
    shutil.copy(made[0], "twice.rib.zip")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile("twice.rib.zip", "a") as archive,
    ):
        archive.writestr(MRI, archive.read(MRI))
    assert "twice" in refused(Path("twice.rib.zip"))
    with zipfile.ZipFile(made[0]) as archive, zipfile.ZipFile("link.rib.zip", "w") as linked:
        for name in archive.namelist():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if name == MRI else 0o644) << 16
            linked.writestr(entry, b"/etc/passwd" if name == MRI else archive.read(name))
    assert "not what its record names" in refused(Path("link.rib.zip"))
    with zipfile.ZipFile("bomb.rib.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, bytes(50_000_000))
    assert "more than" in refused(Path("bomb.rib.zip"))
    with tarfile.open("tar.rib.zip", "w") as archive:
        link = tarfile.TarInfo(FACTS)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert "link" in refused(Path("tar.rib.zip"))


@attack
@pytest.mark.parametrize("text", ["=1", "+1a", "-a", "@a", "\ta"])
def test_formulas_are_known(text):
    assert FORMULA.match(text) and not FORMULA.match("a" + text)


AGAIN = "method,mri,letters\nft,12.345678,a\nlwf,,b\n"


@pytest.mark.parametrize(
    "claimed",
    [
        AGAIN.replace("ft", "lora"),
        AGAIN.replace(",b", ",a"),
        AGAIN.replace("12.345678", ""),
        AGAIN.replace("12.345678", "nan"),
        AGAIN.replace("12.345678", "12.345698"),
        AGAIN.replace("lwf,,", "lwf,0.0,"),
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
    # given
    (tmp_path / "mri.csv").write_text(claimed)
    (tmp_path / "again.csv").write_text(AGAIN)
    # then
    with pytest.raises(UserError, match="mri.csv does not follow from the rows: line [23]"):
        comparison.difference(tmp_path / "mri.csv", tmp_path / "again.csv")


def test_numbers_that_differ_by_rounding_are_the_same_claim(tmp_path):
    (tmp_path / "mri.csv").write_text(AGAIN.replace("12.345678", "12.345679"))
    (tmp_path / "again.csv").write_text(AGAIN)
    lines, numbers, largest = comparison.difference(tmp_path / "mri.csv", tmp_path / "again.csv")
    assert (lines, numbers, largest) == (2, 1, pytest.approx(1e-6))

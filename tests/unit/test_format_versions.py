"""Of records and bundles of another format version nothing is taken over; one sentence says so."""

import json
from pathlib import Path

import pytest

from rib.base.errors import UserError
from rib.records import accept, provenance
from rib.records.verify import OTHER_VERSION, examine, report_lines, verify
from rib.reporting import bundle
from rib.reporting.compare import check
from rib.reporting.status import status
from tiny import bundles
from tiny.records import make, output, record, set_version

OWN = Path(record("a"))
# Another version of a record, and what is said of it.
OTHER_VERSIONS = {
    "newer": (2, "has format version 2, and this checkout reads version 1"),
    "older": (0, "has format version 0, and this checkout reads version 1"),
    "none": (None, "has no format version"),
    "no number": ("\x1b[2J", r"has format version '\x1b[2J'"),
    "true": (True, "has format version True"),
}
CASES = pytest.mark.parametrize(
    ("version", "sentence"), OTHER_VERSIONS.values(), ids=list(OTHER_VERSIONS)
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A finished job."""
    monkeypatch.chdir(tmp_path)
    make("a")
    return tmp_path


def write_line_of_version(version: int) -> None:
    """Gather the job's record as code of another format version does."""
    facts = provenance.read(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "FORMAT_VERSION", version)
        provenance.save({str(OWN): [facts]})


def never(path: str) -> bool:
    return False


def test_a_record_and_a_line_begin_with_the_version():
    provenance.gather([Path("results")])
    for text in (OWN.read_text(), provenance.FILE.read_text()):
        assert next(iter(json.loads(text).items())) == ("format_version", 1)
    assert "format_version" not in provenance.read(OWN)


@CASES
def test_verify_names_file_both_versions_and_a_way_out(version, sentence):
    set_version(OWN, version)
    (finding,) = examine([str(OWN)]).findings
    assert (finding.kind, finding.file) == (OTHER_VERSION, str(OWN)) and sentence in finding.why
    heading, line, advice = report_lines([finding])
    assert "another format version" in heading and sentence in line and line.isprintable()
    assert "Use the code that wrote it" in advice and f"`snakemake {OWN}`" in advice
    with pytest.raises(UserError, match="1 differences"):
        verify([str(OWN)], "log")


@CASES
def test_adoption_names_file_both_versions_and_a_way_out(version, sentence):
    facts = provenance.read(OWN)
    set_version(OWN, version)
    with pytest.raises(UserError) as error:
        provenance.match({str(OWN): [facts]}, never, never)
    message = str(error.value)
    assert message.startswith(f"{OWN}: has ") and sentence in message and message.isprintable()
    assert "Use the code that wrote it" in message


def test_a_gathered_line_of_another_version_stops_what_reads_it():
    """That is adoption, verify, accept and track, with one sentence."""
    write_line_of_version(2)
    readers = (
        provenance.load,
        lambda: examine([str(OWN)]),
        lambda: accept.accept({str(OWN): {}}, 1, pytest.fail, pytest.fail),
        lambda: provenance.gather([Path("results")]),
    )
    for read in readers:
        with pytest.raises(UserError, match=r"^provenance\.jsonl, line 1 has .* 2, .* 1\. Use"):
            read()


@CASES
def test_accept_and_track_leave_the_job_out(version, sentence, caplog, capsys):
    set_version(OWN, version)
    before = OWN.read_bytes()
    change = {"code": "new", "kind": "k", "model": "m"}
    accept.accept({str(OWN): change}, 1, pytest.fail, pytest.fail)
    printed = capsys.readouterr().out
    assert ": 1 jobs\n" in printed and "nothing to accept" in printed
    assert provenance.gather([Path("results")]) == 0
    assert f"{OWN} is left out: it {sentence}" in caplog.text
    assert OWN.read_bytes() == before


@CASES
def test_a_run_names_the_record_among_what_changed(version, sentence):
    set_version(OWN, version)
    assert provenance.changed(never, never) == [str(OWN)]
    assert sentence in provenance.problem_of_version(OWN)


@CASES
def test_status_counts_the_job_as_missing_and_says_why(version, sentence):
    make("b")
    set_version(OWN, version)
    lines = status({"prepare": [str(OWN), record("b")]}, {}, 1)
    (line,) = [line for line in lines if str(OWN) in line]
    assert "1 done       1 missing" in lines[0]
    assert line.startswith(f"counted as missing: {OWN}: {sentence}")


def test_a_damaged_record_has_no_version_problem():
    for text in ("{", "[1]", OWN.read_text().replace('"seconds": 1.0', '"seconds": 2.0')):
        OWN.write_text(text)
        assert provenance.read(OWN) is None
        assert provenance.problem_of_version(OWN) == ""
    assert provenance.problem_of_version(Path(output("a"))) == ""
    assert provenance.problem_of_version(Path("missing")) == ""


@pytest.mark.parametrize(
    ("module", "constant", "sentence"),
    [
        (bundle, "VERSION", r"tiny\.rib\.zip is a bundle of version 99; make one of version 3"),
        (
            provenance,
            "FORMAT_VERSION",
            r"tiny\.rib\.zip: provenance\.jsonl, line 1 has format version 99, .* version 1; make",
        ),
    ],
    ids=["bundle", "its records"],
)
def test_compare_refuses_a_bundle_of_another_version(folder, module, constant, sentence):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, constant, 99)
        path = bundles.make(folder / "project", {"ft": 0.1})
    (folder / "work/compare").mkdir(parents=True)
    with pytest.raises(UserError, match=sentence):
        check(path, "tiny")

"""rib.records.snakemake_metadata against the installed Snakemake, with a workflow of one job."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from rib.base.files import sha256
from rib.records.snakemake_metadata import SnakemakeMetadata
from tiny.projects import forked

SNAKEFILE = """
rule make:
    input:
        target="in.txt", reference="in.txt", listed=["more.txt"],
    output:
        "results/out.txt", record="results/provenance.json",
    log:
        "logs/make.log",
    params:
        cfg={"lr": config.get("lr", 0.1), "names": ["a", "b"], "none": None},
    shell:
        "cat {input} > {output[0]}; echo made > {output.record}"
"""
OPTIONS = ("--cores", "1", "--rerun-triggers", "params", "input")
OUTPUTS = ("results/out.txt", "results/provenance.json")
# What depends on the moment, or has no effect: Snakemake compares no start, and `code` only where
# a rule has no script.
NOT_COMPARED = ("starttime", "endtime", "job_hash", "code", "shellcmd", "software_stack_hash")


def snakemake(*words: str) -> str:
    status, printed = forked.call("snakemake", [*words, *OPTIONS], Path.cwd(), os.environ)
    assert status == 0, printed
    return printed


def stored() -> list[dict]:
    """Snakemake's metadata of all outputs, by file name."""
    files = sorted(path for path in Path(".snakemake/metadata").rglob("*") if path.is_file())
    return [json.loads(file.read_text()) for file in files]


def comparable(records: list[dict]) -> list[dict]:
    """Metadata without what is not compared, and with checksums in one form."""
    kept = []
    for record in records:
        facts = {key: value for key, value in record.items() if key not in NOT_COMPARED}
        facts["input_checksums"] = {
            path: checksum.removeprefix("sha256:")
            for path, checksum in record["input_checksums"].items()
        }
        kept.append(facts)
    return kept


def write_as_if_run_here(lr: float = 0.1, ended: float = 1.7e9) -> None:
    """Store metadata of the job in a folder that Snakemake does not know."""
    metadata = SnakemakeMetadata()
    for output in OUTPUTS:
        metadata.write(
            output,
            rule="make",
            settings={"lr": lr, "names": ["a", "b"], "none": None},
            inputs=["in.txt", "in.txt", "more.txt"],
            checksums={path: sha256(Path(path)) for path in ("in.txt", "more.txt")},
            log_file="logs/make.log",
            started=ended - 1,
            ended=ended,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the job has run; do not change it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "in.txt").write_text("in")
    (folder / "more.txt").write_text("more")
    with contextlib.chdir(folder):
        snakemake()
    return folder


@pytest.fixture
def made(folder, tmp_path, monkeypatch):
    """The job has run in the current folder; gives Snakemake's metadata, which is taken away."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    of_snakemake = stored()
    shutil.move(".snakemake", "taken")
    return of_snakemake


def test_what_is_written_is_what_snakemake_would_have_written(made):
    write_as_if_run_here()
    assert len(made) == len(OUTPUTS)
    assert comparable(stored()) == comparable(made)


def test_what_snakemake_wrote_is_read(made):
    shutil.rmtree(".snakemake", ignore_errors=True)
    shutil.move("taken", ".snakemake")
    metadata = SnakemakeMetadata()
    found = metadata.read(OUTPUTS[0])
    assert found.settings == "{'lr': 0.1, 'names': ['a', 'b'], 'none': None}"
    assert found.inputs == ["in.txt", "in.txt", "more.txt"]
    assert found.checksums == {path: sha256(Path(path)) for path in ("in.txt", "more.txt")}
    assert metadata.is_of_this_version(OUTPUTS[0], found)
    os.utime(OUTPUTS[0])
    assert not metadata.is_of_this_version(OUTPUTS[0], found)
    assert metadata.read("in.txt") is None


def test_snakemake_has_nothing_to_do_and_sees_changes(made):
    write_as_if_run_here(ended=1.0)  # so that all inputs look newer
    assert "Nothing to be done" in snakemake("-n")
    assert "params have changed" in " ".join(snakemake("-n", "--config", "lr=0.2").lower().split())
    Path("more.txt").write_text("other")
    assert "updated input files" in " ".join(snakemake("-n").lower().split())


def test_what_was_touched_is_known_with_its_new_settings(made):
    write_as_if_run_here(lr=0.2)
    snakemake("--touch")
    found = SnakemakeMetadata().read(OUTPUTS[0])
    assert found.settings == "{'lr': 0.1, 'names': ['a', 'b'], 'none': None}"
    assert found.ended > 1.7e9 + 1


def test_a_job_that_did_not_end_is_unfinished_until_its_outputs_are_written(made):
    SnakemakeMetadata()  # makes the folders
    marker = Path(".snakemake/incomplete/cmVzdWx0cy9vdXQudHh0")  # base64 of the first output
    marker.write_text('{"external_jobid": null}')
    assert SnakemakeMetadata().is_unfinished(OUTPUTS[0])
    write_as_if_run_here()
    assert not SnakemakeMetadata().is_unfinished(OUTPUTS[0])

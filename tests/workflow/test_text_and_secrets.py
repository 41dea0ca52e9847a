"""Hostile text in whole projects.

It is in config files and Snakemake's report; secrets are in URLs and variables.
"""

import hashlib
import json
import re
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from tiny.projects.project import SECRETS, jobs
from tiny.servers.files import serve

pytestmark = pytest.mark.thorough

# Ten anchors. Each but the first repeats the one before nine times.
LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11))
CONFIGS = {
    "billion laughs": f"a0: &a0 [x]\n{LAUGHS}",
    "duplicate keys": "family: emoji\nfamily: tiny\n",
    "Python in the file": "__use_yte__: true\n?open('trap', 'w').close() or 'family': tiny\n",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_config_is_refused_before_snakemake_reads_it(project, kind):
    (project.folder / "config.yaml").write_text(CONFIGS[kind])
    begun = time.monotonic()
    printed = project.snakemake("-n", check=False)
    assert (
        time.monotonic() - begun < 20
        and "config.yaml" in printed
        and "Traceback (most" not in printed
    )
    assert not (project.folder / "trap").exists() and "Building DAG" not in printed


def results(report):
    """Snakemake's results as its report has them in a script.

    It is read as a browser does: up to the first end tag.
    """
    (script,) = re.findall(
        r'<script id="results">\s*var results = (.*?);?\s*</script', report, re.S
    )
    return json.loads(script)


@pytest.fixture
def relabelled(finished_copy):
    """Writes Snakemake's report of a finished project in which a label is another one."""

    def make(label, check=True):
        path = finished_copy.folder / "mine/datasets.yaml"
        entries = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(entries | {"red": {**entries["red"], "label": label}}))
        printed = finished_copy.snakemake("--report", "reports/own.html", check=check)
        report = finished_copy.folder / "reports/own.html"
        return printed, report.read_text() if report.exists() else None

    return make


def test_no_report_is_made_with_labels_that_are_markup(relabelled):
    printed, report = relabelled("</script><script>alert(1)</script>", check=False)
    assert report is None and "red.label" in printed and "Traceback (most" not in printed


def test_other_labels_are_text_in_the_report(relabelled, reported):
    label = "R&D \"d\" 'q' `b` {{ 7 * 7 }} {wildcards.figure} ${x} \\u003c"
    before = (reported.folder / "reports/tiny/report.html").read_text()
    _, report = relabelled(label)
    assert report.count("<script") == before.count("<script")
    found = results(report)
    assert found.keys() == results(before).keys()
    shown = [entry["job_properties"]["params"] for entry in found.values()]
    assert any("R&D" in text and "{{ 7 * 7 }} {wildcards.figure}" in text for text in shown)
    assert not any("<script" in entry["caption"] for entry in found.values())


def test_the_report_names_each_figure(reported):
    found = results((reported.folder / "reports/tiny/report.html").read_text())
    labels = {Path(path).name: entry["labels"] for path, entry in found.items()}
    figures = (reported.folder / "reports/tiny/figures").glob("*.png")
    assert labels == {path.name: {"figure": path.stem} for path in figures}


@pytest.fixture
def signed(project):
    """The project with a dataset behind a signed URL, and a function that changes the URL's end."""
    archive = project.folder / "mine/archives/red.zip"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    catalogue = project.folder / "mine/datasets.yaml"
    entries = yaml.safe_load(catalogue.read_text())
    with serve(archive.parent) as address:

        def change(end):
            source = {
                "kind": "http",
                "urls": [f"{address}/{end}"],
                "file": "red.zip",
                "digest": f"sha256:{digest}",
            }
            catalogue.write_text(
                yaml.safe_dump(entries | {"red": {**entries["red"], "source": source}})
            )

        yield project, change


def leaked(project, secret):
    """Files of a project that contain a secret, but not its catalogue."""
    return [
        path.relative_to(project.folder)
        for path in project.folder.rglob("*")
        if path.is_file()
        and "mine" not in path.parts
        and path.suffix != ".safetensors"
        and secret.encode() in path.read_bytes()
    ]


RED = "data/raw/red/red.zip"
FORGED = "all checks passed"
ESCAPED = (
    r"\x1b]0;owned\x07\x1b[2J\r\n"  # a title of the terminal, an empty screen, the start of a line
)


def test_a_name_in_an_archive_neither_commands_the_terminal_nor_forges_a_line(project):
    """An archive has a photo in a folder of such a name.

    Its preparation tells of it in one line.
    """
    archive = project.folder / "mine/archives/red.zip"
    before = hashlib.sha256(archive.read_bytes()).hexdigest()
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr(f"{ESCAPED.encode().decode('unicode_escape')}{FORGED}/1.jpg", b"")
    project.edit("mine/datasets.yaml", before, hashlib.sha256(archive.read_bytes()).hexdigest())
    geometry = project.grid().geometry("tiny_cnn").key
    prepared = f"results/tiny/prepare/red/{geometry}/manifest.json"
    printed = project.snakemake(prepared, "--cores", "1", "--verbose")
    logs = [path.read_text() for path in (project.folder / "logs").rglob("prepare/**/*.log")]
    assert f"{ESCAPED}{FORGED}" in printed and len(logs) == 1
    for text in (printed, *logs):
        assert not re.search(rf"^{FORGED}|\x1b", text, re.MULTILINE), text


def test_signatures_of_urls_are_in_no_record_and_do_not_count(signed):
    project, change = signed
    change("red.zip?X-Amz-Signature=first-secret")
    printed = project.snakemake(RED, "--cores", "1")
    record = json.loads((project.folder / f"{RED}.provenance.json").read_text())
    assert record["cfg"]["source"].keys() == {"file", "digest"}, "no address"
    assert "first-secret" not in printed and leaked(project, "first-secret") == []
    change("another/red.zip?X-Amz-Signature=second-secret")
    assert jobs(project.snakemake("-n", RED)) == {}, "another address is not another file"


def test_signatures_of_urls_that_fail_are_in_no_log(signed):
    project, change = signed
    change("none.zip?X-Amz-Signature=first-secret")
    printed = project.snakemake(RED, "--cores", "1", check=False)
    assert "/none.zip?[redacted]" in printed and "HTTP 404" in printed
    assert "first-secret" not in printed and leaked(project, "first-secret") == []


def test_urls_with_passwords_are_refused_at_start(signed):
    project, _ = signed
    catalogue = project.folder / "mine/datasets.yaml"
    catalogue.write_text(
        catalogue.read_text().replace(
            "origin: tests", "origin: https://me:password-of-me@example.org/", 1
        )
    )
    printed = project.snakemake("-n", check=False)
    assert "origin" in printed and "https://[redacted]@example.org/" in printed
    assert leaked(project, "password-of-me") == []
    assert "password-of-me" not in printed


def test_secrets_of_the_environment_are_in_no_log_record_or_report(finished, reported):
    _, printed = finished
    for secret in SECRETS.values():
        assert secret not in printed
        assert leaked(reported, secret) == []

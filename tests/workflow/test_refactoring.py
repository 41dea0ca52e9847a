"""Results kept after a change of code that changes no bytes, and not after one that does."""

import json

import pytest

from tiny.project import PAGE, methods

pytestmark = pytest.mark.thorough

LWF = "workflow/lib/rib/methods/lwf.py"
RUN = "results/tiny/paper/finetune/tiny_cnn/red/lwf/all/0"


def accept(project, check=True, **environment):
    return project.snakemake("accept", "--cores", "2", check=check, **environment)


def test_a_refactoring_is_accepted_and_leaves_nothing_to_do(finished_copy):
    products = finished_copy.products()
    finished_copy.edit(
        LWF, "self.weight * self.temperature**2", "self.temperature**2 * self.weight"
    )
    assert methods(finished_copy.listed(), "finetune") == {"lwf"}
    printed = accept(finished_copy, RIB_ACCEPT_SAMPLE="1")
    assert "only the code has changed for 2 jobs; re-running 1 in another folder" in printed
    assert "the outputs of 1 sampled jobs are identical: 2 jobs accepted" in printed
    assert "Nothing to be done" in finished_copy.snakemake("-n")
    assert finished_copy.products() == products and not list(
        finished_copy.folder.glob("work/accept-*")
    )
    record = json.loads((finished_copy.folder / RUN / "provenance.json").read_text())
    (entry,) = record["accepted"]
    assert (
        entry["to"] == record["cfg"]["code"] != entry["from"]
        and len(entry["sample"]) == 1
        and entry["when"]
    )
    assert "all files match their records" in finished_copy.snakemake("verify", "--cores", "1")
    assert "nothing to accept" in accept(finished_copy)


@pytest.mark.slow
def test_other_bytes_are_refused_and_nothing_is_changed(finished_copy):
    finished_copy.edit(
        LWF, "self.weight * self.temperature**2", "1.5 * self.weight * self.temperature**2"
    )
    planned, before = finished_copy.planned(), finished_copy.state()
    printed = accept(finished_copy, check=False)
    assert (
        "differs with the current code (2 of 2 sampled jobs have other outputs); "
        "nothing was accepted" in printed
    )
    assert "/lwf/all/0/checkpoint.safetensors" in printed and "Traceback" not in printed
    assert finished_copy.state() == before and finished_copy.planned() == planned


@pytest.mark.slow
def test_another_setting_or_input_is_never_accepted(finished_copy):
    finished_copy.edit(
        LWF, "self.weight * self.temperature**2", "self.temperature**2 * self.weight"
    )
    finished_copy.edit("workflow/catalog/methods.yaml", "temperature: 2.0", "temperature: 3.0")
    assert "nothing to accept" in accept(finished_copy)
    finished_copy.edit("workflow/catalog/methods.yaml", "temperature: 3.0", "temperature: 2.0")
    manifest = finished_copy.folder / "results/tiny/prepare/red/160px-bicubic-crop1/manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    before = finished_copy.state()
    printed = accept(finished_copy)
    assert "from the record: 1 jobs\n" in printed and "1 jobs accepted" in printed
    changed = {
        str(path.relative_to(finished_copy.folder))
        for path, was in finished_copy.state().items()
        if was != before.get(path)
    }
    assert any("/green/lwf/" in path for path in changed) and not any(
        "/red/" in path for path in changed
    )


@pytest.mark.slow
def test_code_that_fails_is_refused_in_one_sentence(finished_copy):
    finished_copy.edit(LWF, "self.weight * self.temperature**2", "self.wait * self.temperature**2")
    before = finished_copy.state()
    printed = accept(finished_copy, check=False, RIB_ACCEPT_SAMPLE="1")
    assert (
        "a sampled job of finetune fails with the current code" in printed
        and "logs/accept.log" in printed
    )
    assert (
        finished_copy.state() == before
        and "wait" in (finished_copy.folder / "logs/accept.log").read_text()
    )


@pytest.mark.slow
def test_a_module_that_all_use_is_accepted_but_for_what_tells_times(finished_copy):
    products = finished_copy.products()
    finished_copy.edit(
        "workflow/lib/rib/base/files.py",
        "return digest.digest()",
        "return (digest).digest()",
    )
    printed = accept(finished_copy, RIB_ACCEPT_SAMPLE="1")
    assert "only the code has changed for 44 jobs" in printed and "44 jobs accepted" in printed
    assert set(finished_copy.planned()) == {"count_costs", "plot_figure", *PAGE}
    finished_copy.snakemake()
    assert finished_copy.products() == products and "Nothing to be done" in finished_copy.snakemake(
        "-n"
    )
    assert (
        "jobs were run with earlier code"
        in (finished_copy.folder / "reports/tiny/index.html").read_text()
    )

"""Tables, figures and a page of an unfinished grid."""

import re
import shutil

import pandas as pd
import pytest

RUNS = "results/tiny/paper/evaluate/tiny_cnn"
LACKS = "preview: no run is finished"


@pytest.fixture
def partial(finished_copy):
    """A project in which one run, of two targets, is not evaluated.

    Another process at work holds a lock.
    """
    shutil.rmtree(finished_copy.folder / RUNS / "green/lwf")
    lock = finished_copy.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(f"{RUNS}/green/lwf/all/0/tiny.parquet\n")
    return finished_copy


def table(project, name, folder="reports/tiny/preview"):
    return pd.read_csv(project.folder / folder / f"tables/{name}.csv")


def test_it_is_one_job_and_a_dry_run_writes_nothing(partial):
    before = partial.state()
    assert partial.planned("preview") == {"preview": 1}
    assert partial.state() == before


@pytest.mark.thorough
def test_finished_runs_have_their_numbers_and_what_is_missing_is_named(partial):
    before = partial.state()
    assert "8 of 9 runs" in partial.snakemake("preview", "--cores", "1")
    preview = partial.folder / "reports/tiny/preview"
    after = {
        path: stat for path, stat in partial.state().items() if not path.is_relative_to(preview)
    }
    assert after == before, "nothing else is touched"

    for name in ("ri", "accuracy"):
        here, whole = table(partial, name), table(partial, name, "reports/tiny")
        whole = whole[(whole["method"] != "lwf") | (whole["target"] != "green")].reset_index(
            drop=True
        )
        pd.testing.assert_frame_equal(
            here.drop(columns="conditions"), whole.drop(columns="conditions")
        )
    assert table(partial, "ri")["conditions"].str.contains("PREVIEW of 8 of 9 runs").all()

    mri, whole = table(partial, "mri"), table(partial, "mri", "reports/tiny")
    assert "lwf" not in set(mri["method"]), "its mean would be over other targets"
    whole = whole[whole["method"] != "lwf"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mri.drop(columns="conditions"), whole.drop(columns="conditions"))
    assert "lwf" not in {
        *table(partial, "comparisons")["method"],
        *table(partial, "comparisons")["other"],
    }

    page = (preview / "index.html").read_text()
    assert (
        re.search(r"LwF: 1 of 2 runs", page)
        and re.search("Green: 3 of 4 runs", page)
        and "left out:" not in page
    )
    figures = {path.stem for path in (preview / "figures").glob("*.png")}
    assert figures == {
        path.stem for path in (partial.folder / "reports/tiny/figures").glob("*.png")
    }
    assert not list(preview.rglob("*provenance.json"))


@pytest.mark.thorough
def test_a_grid_of_other_settings_or_damaged_rows_has_no_preview(partial):
    page = partial.folder / "reports/tiny/preview/index.html"
    for choice in ("training={epochs: 3}", "seeds=[0,1]"):
        printed = partial.snakemake("preview", "--cores", "1", config=(choice,), check=False)
        assert LACKS in printed and "Traceback (most" not in printed and not page.exists()
    rows = partial.folder / RUNS / "none/pretrained/all/0/tiny.parquet"
    rows.write_bytes(rows.read_bytes() + b"!")
    assert LACKS in partial.snakemake("preview", "--cores", "1", check=False) and not page.exists()


@pytest.mark.thorough
def test_a_project_that_has_run_nothing_has_no_preview(project):
    printed = project.snakemake("preview", "--cores", "1", check=False)
    assert (
        sum(LACKS in line for line in printed.splitlines()) == 1
        and "Traceback (most" not in printed
    )

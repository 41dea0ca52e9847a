"""Tables, figures and a page of an unfinished grid, made beside a run."""

import re
import shutil

import pandas as pd
import pytest

pytestmark = pytest.mark.thorough

RUNS = "results/tiny/paper/evaluate/tiny_cnn"
PREVIEW = "reports/tiny/preview"


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


def table(project, name, folder=PREVIEW):
    return pd.read_csv(project.folder / folder / f"tables/{name}.csv").drop(columns="conditions")


def test_finished_runs_have_their_numbers_and_what_is_missing_is_named(partial):
    before = partial.state()
    assert f"Page: {PREVIEW}/index.html" in partial.rib("preview")
    preview = partial.folder / PREVIEW
    after = {
        path: stat
        for path, stat in partial.state().items()
        if not path.is_relative_to(preview) and path.name != "preview.log"
    }
    assert after == before, "nothing else is touched"

    # without LwF, which is finished on one of two targets
    for name in ("ri", "accuracy", "mri"):
        whole = table(partial, name, "reports/tiny")
        whole = whole[whole["method"] != "lwf"].reset_index(drop=True)
        pd.testing.assert_frame_equal(table(partial, name), whole)

    page = (preview / "index.html").read_text()
    assert "7 of 9 runs" in page
    assert re.search(r"LwF: 0 of 2 runs", page)
    assert "left out:" not in page and "recorded with other settings" not in page
    figures = {path.stem for path in (preview / "figures").glob("*.png")}
    assert figures == {
        path.stem for path in (partial.folder / "reports/tiny/figures").glob("*.png")
    }


def test_runs_of_other_settings_and_what_cannot_be_made_are_named(partial):
    library = partial.folder / "workflow/lib/rib/analyses"
    broken = library / "cost.py"
    broken.write_text(broken.read_text() + "\n\ndef tables(inputs):\n    return inputs.none\n")
    partial.rib("preview", config=("training={epochs: 3}",))
    page = (partial.folder / PREVIEW / "index.html").read_text()
    assert re.search(r"recorded with other settings than the present ones:.*red/ft/all/0", page)
    assert re.search(r"cost is left out: AttributeError", page)
    assert "Traceback" in (partial.folder / "logs/preview.log").read_text()


def test_a_project_that_has_run_nothing_has_no_preview(project):
    printed = project.rib("preview", check=False)
    assert "no run is finished" in printed and "Traceback (most" not in printed
    assert "run `rib preview`" in project.snakemake("preview", check=False)

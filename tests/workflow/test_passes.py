"""Photos that are kept encoded are decoded once for several runs, and nothing but the time tells."""

import json

import pytest

from tiny import family
from tiny.project import Project, copy_project

CHOICES = ("methods=[ft,linear_probe,wise_ft]", "targets=[red]", "training={epochs: 1}")
ROWS = [
    f"results/tiny/paper/evaluate/tiny_cnn/{run}/all/0/large.parquet"
    for run in ("none/pretrained", "red/ft", "red/linear_probe", "red/wise_ft")
]


@pytest.fixture
def project(tmp_path):
    """The tiny family with one dataset kept encoded, in a suite of its own."""
    folder = copy_project(tmp_path / "project")
    family.make(folder / "mine", images_per_class=2)
    found = Project(folder)
    found.edit("mine/datasets.yaml", "label: Blue", "label: Blue\n  storage: encoded")
    text = (folder / "mine/datasets.yaml").read_text()
    start = text.index("blue:")
    (folder / "mine/datasets.yaml").write_text(text[:start] + text[start:].replace("suite: tiny", "suite: large", 1))
    return found


@pytest.mark.slow
def test_one_pass_scores_every_run_that_is_due_to_the_same_bytes(project):
    project.snakemake(*ROWS, "--cores", "2", config=(*CHOICES, "compute={checkpoints_per_pass: 1}"))
    runs = project.folder / "results/tiny/paper"
    rows = [project.folder / name for name in ROWS]
    alone = {path: path.read_bytes() for path in rows}
    logs = {path: project.folder / "logs/tiny" / path.relative_to(runs.parent).with_suffix(".log") for path in rows}
    assert not any("decoded once" in log.read_text() for log in logs.values())
    records = {path: json.loads(path.with_suffix(".provenance.json").read_text()) for path in rows}

    for path in rows:
        path.unlink()
    project.snakemake(*ROWS, "--cores", "1", config=CHOICES)
    said = [log.read_text() for log in logs.values()]
    assert sum("scoring 4 runs while the photos are decoded once" in text for text in said) == 1
    assert sum("another job has scored this run already" in text for text in said) == 3
    assert {path: path.read_bytes() for path in rows} == alone
    for path in rows:
        record = json.loads(path.with_suffix(".provenance.json").read_text())
        assert all(record[key] == records[path][key] for key in ("cfg", "inputs", "outputs", "job"))
    assert not [path for path in (project.folder / "work").iterdir() if path.name != "locks"]
    assert "Nothing to be done" in project.snakemake(*ROWS, config=(*CHOICES, "compute={checkpoints_per_pass: 2}"))

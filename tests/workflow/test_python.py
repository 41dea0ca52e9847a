"""The functions of `rib` that read a project folder."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import torch

import rib
from rib.base.errors import UserError
from rib.jobs.code_digest import closure
from tiny.projects.project import ROOT

pytestmark = pytest.mark.thorough

TARGETS = ["red", "green"]
METHODS = ["ft", "linear_probe", "lwf", "wise_ft"]
OF_MODEL = "tiny/paper/tiny_cnn"
PRETRAINED = f"{OF_MODEL}/none/pretrained/all/0"
RUN = f"{OF_MODEL}/red/ft/all/0"


@pytest.fixture(scope="module")
def folder(finished):
    """Folder of a project whose tiny run is finished; do not change it."""
    project, _ = finished
    return project.folder


@pytest.fixture(scope="module")
def before(folder):
    return rib.load_rows(folder, PRETRAINED)


@pytest.fixture(scope="module")
def after(folder):
    runs = [f"{OF_MODEL}/{target}/{method}/all/0" for target in TARGETS for method in METHODS]
    return pd.concat(rib.load_rows(folder, run) for run in runs)


def test_networks_are_those_of_the_checkpoints(folder):
    pretrained, tuned, merged = [
        rib.load_network(folder, run) for run in (PRETRAINED, RUN, f"{OF_MODEL}/red/wise_ft/all/0")
    ]
    tensors = [network.state_dict() for network in (pretrained, tuned, merged)]
    changed = []
    for name, tensor in tensors[0].items():
        if not torch.equal(tensor, tensors[1][name]) and tensor.is_floating_point():
            changed.append(name)
            torch.testing.assert_close((tensor + tensors[1][name]) / 2, tensors[2][name])
    assert changed
    assert not tuned.training and set(tuned.preprocessing) == {"mean", "std"}
    assert tuned(torch.zeros(2, 3, 160, 160)).shape == (2, 1000)


def test_rows_are_those_of_the_files(folder):
    (file,) = (folder / "results/tiny/paper/evaluate/tiny_cnn/red/ft/all/0").glob("*.parquet")
    pd.testing.assert_frame_equal(rib.load_rows(folder, RUN), pd.read_parquet(file))


def test_tables_are_those_of_the_page(folder):
    tables = rib.load_tables(folder, "tiny")
    assert {"ri", "mri", "accuracy"} <= tables.keys()
    assert set(tables["mri"]["method"]) == set(METHODS)
    with pytest.raises(UserError, match="has no tables"):
        rib.load_tables(folder, "tiny_held_out")


@pytest.mark.parametrize("name", ["ri", "mri"])
def test_ri_and_mri_are_those_of_the_tables(folder, before, after, name):
    table = getattr(rib, name)(before, after, folder, "tiny", catalog="mine")
    of_workflow = rib.load_tables(folder, "tiny")[name]
    columns = [column for column in table.columns if column in of_workflow]
    assert {name, "ci_low", "ci_high"} <= set(columns)
    pd.testing.assert_frame_equal(
        table[columns],
        of_workflow[columns],
        atol=1e-5,
        check_dtype=False,
        check_index_type=False,
    )


def test_rows_that_no_ri_can_be_of_are_refused(folder, before, after):
    with pytest.raises(UserError, match="'row' has other images of blue"):
        rib.ri(before[1:], after, folder, "tiny", catalog="mine")
    beyond_the_last = [rows.assign(row=rows["row"] + 15) for rows in (before, after)]
    with pytest.raises(UserError, match="'row'"):
        rib.ri(*beyond_the_last, folder, "tiny", catalog="mine")
    with pytest.raises(UserError, match="the rows of the pretrained tiny_cnn are missing"):
        rib.mri(after, after[:0], folder, "tiny", catalog="mine")


@pytest.mark.parametrize(
    "run",
    [f"{OF_MODEL}/*/ft/all/0", f"{OF_MODEL}/red/ft/all/1", f"{OF_MODEL}/red/ft/all"],
)
def test_a_run_is_named_exactly(folder, run):
    with pytest.raises(UserError, match=re.escape(f"has no finished run {run}; ")):
        rib.load_rows(folder, run)


def test_changed_files_are_refused(finished_copy):
    folder = finished_copy.folder
    results = folder / "results/tiny/paper"
    (rows_file,) = (results / "evaluate/tiny_cnn/red/ft/all/0").glob("*.parquet")
    rows_file.write_bytes(rows_file.read_bytes() + b" ")
    with pytest.raises(UserError, match="is missing or was changed"):
        rib.load_rows(folder, RUN)
    manifest = results / "finetune/tiny_cnn/green/ft/all/0/manifest.json"
    manifest.unlink()
    with pytest.raises(UserError, match=f"{manifest} is missing"):
        rib.load_network(folder, f"{OF_MODEL}/green/ft/all/0")


def test_the_documented_example_runs(folder, monkeypatch, capsys):
    """On the tiny family, by other names."""
    page = (ROOT / "docs/sharing.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    tiny_names = {
        "emoji/paper/efficientnet_lite0": OF_MODEL,
        '"noto"': '"red"',
        '"openmoji"': '"green"',
        "/noto/": "/red/",
        'before, after, ".", "emoji")': 'before, after, ".", "tiny", catalog="mine")',
        '"emoji")': '"tiny")',
    }
    for name, tiny_name in tiny_names.items():
        assert name in code
        code = code.replace(name, tiny_name)
    monkeypatch.chdir(folder)
    exec(code, {})
    assert re.search(r"^0 +ft +-?[\d.]+", capsys.readouterr().out, re.MULTILINE)


PRINT_HEAVY_MODULES = """
import rib, sys

packages = {name.split(".")[0] for name in sys.modules}
print(packages & {"torch", "pandas", "numpy", "yaml"})
"""


def test_importing_is_light_and_no_digest_of_code_depends_on_the_functions():
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HEAVY_MODULES],
        env={"PYTHONPATH": str(ROOT / "workflow/lib")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n"
    scripts = list((ROOT / "workflow/scripts").glob("*.py"))
    assert scripts
    for script in scripts:
        assert ROOT / "workflow/lib/rib/project.py" not in closure(script)

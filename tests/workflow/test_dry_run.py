"""What a dry-run of the default grid shows; nothing is executed and torch is never imported.

What config's choices come to, and how mistakes in them are refused, is tested in
tests/unit/test_grid.py, test_catalog.py and test_label_space.py.
"""

import re
import sys

import pytest

from tiny.projects.project import FIGURES, PAGE, TABLES, Project, copy_project


@pytest.fixture
def project(tmp_path):
    return Project(copy_project(tmp_path / "project"), family="fashion")


def test_the_default_grid(project):
    models = 3
    trained = 2  # methods
    merged = 1  # WiSE-FT, whose three alphas are evaluated together
    targets = 4
    datasets = 9
    archives = 4  # which all datasets share
    networks = models  # a file of weights each
    assert project.planned() == {
        "download": archives + networks,
        "prepare": datasets,
        "convert_model": models,
        "finetune": models * trained * targets,
        "evaluate": models * (1 + (trained + merged) * targets),
        **TABLES,
        "analyse_models": 1,
        "analyse_pretraining_sizes": 1,
        **FIGURES,
        **PAGE,
    }


@pytest.mark.thorough
def test_a_dry_run_does_not_import_torch(project):
    printed = project.run(sys.executable, "-m", "snakemake", "-n", PYTHONPROFILEIMPORTTIME="1")
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", printed, re.M))
    assert "snakemake" in imported and "rib.grid.grid" in imported
    # (pandas comes with Snakemake's plugin for SLURM, which every start of Snakemake imports)
    assert not {
        name
        for name in imported
        if name.split(".")[0] in ("torch", "timm", "torchvision", "matplotlib")
    }


def test_a_bad_choice_is_one_sentence_and_leaves_nothing(project):
    printed = project.snakemake("-n", config=("model=all",), check=False)
    *_, last_line = printed.splitlines()
    assert re.search(r"unknown key 'model' .*'models'", last_line)
    assert "Traceback (most" not in printed and 'File "' not in printed
    assert not any((project.folder / name).exists() for name in ("results", "reports", "data/raw"))


@pytest.mark.thorough
def test_without_targets_no_models_are_compared(project):
    planned = project.planned(config=("datasets=[fashion_drawing,fashion_tilted]",))
    assert "analyse_models" not in planned and planned["compute_metrics"] == 1

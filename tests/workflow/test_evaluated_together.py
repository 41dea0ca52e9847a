"""Averages that a family lists, which one job evaluates whichever of them config names."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import rib
from tiny.projects.project import FIGURES, PAGE, TABLES, Project

pytestmark = pytest.mark.thorough

TARGETS = ("red", "green")
RUN = "tiny/paper/tiny_cnn/red/{}/all/0"
# What is made of rows, in whatever grid they are.
MADE_OF_ROWS = {*TABLES, *FIGURES, *PAGE}


def make_mri(project, *config):
    """Run what the table of mRI needs."""
    project.snakemake("reports/tiny/tables/mri.csv", "--cores", "1", config=config)


@pytest.fixture(scope="module")
def averages(finished, tmp_path_factory):
    """A finished project whose family then lists two alphas of WiSE-FT, run with them."""
    finished_project, _ = finished
    project = Project(tmp_path_factory.mktemp("averages") / "project")
    shutil.copytree(finished_project.folder, project.folder, symlinks=True)
    family = project.folder / "mine/families/tiny.yaml"
    entry = yaml.safe_load(family.read_text())
    entry["method_settings"] = {"wise_ft": {"alpha": [0.25, 0.75]}}
    family.write_text(yaml.safe_dump(entry))
    planned = project.planned()
    assert planned["evaluate"] == len(TARGETS)
    assert set(planned) <= {"evaluate", *MADE_OF_ROWS}
    make_mri(project)
    return project


def test_a_narrower_config_runs_nothing_before_metrics_again(averages):
    narrower = [("methods=[ft]",), ("method_settings={wise_ft: {alpha: [0.75]}}",)]
    for config in narrower:
        assert set(averages.planned(config=config)) <= MADE_OF_ROWS
        make_mri(averages, *config)
    assert set(averages.planned()) <= MADE_OF_ROWS
    make_mri(averages)


def test_an_alpha_that_only_config_names_has_a_job_of_its_own(averages):
    printed = averages.listed(config=("method_settings={wise_ft: {alpha: [0.25, 0.5]}}",))
    assert set(re.findall(r"\bentry=([^,]+),", printed)) == {"wise_ft-alpha0.5"}


def test_a_network_is_loaded_with_the_weights_and_rows_of_its_own_alpha(averages):
    # given
    prepared = averages.folder / "results/tiny/prepare/blue/160px-bicubic-crop1"
    images = np.load(prepared / "images.npy")
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    label_space = json.loads((prepared / "classes.json").read_text())
    outputs_of_classes = [outputs[0] for outputs in label_space["indices"]]
    pretrained_run = "tiny/paper/tiny_cnn/none/pretrained/all/0"
    pretrained = rib.load_network(averages.folder, pretrained_run).state_dict()
    tuned = rib.load_network(averages.folder, RUN.format("ft")).state_dict()
    confidences = {}
    for alpha in (0.25, 0.75):
        method = f"wise_ft-alpha{alpha}"
        # when
        network = rib.load_network(averages.folder, RUN.format(method))
        rows = rib.load_rows(averages.folder, RUN.format(method))
        # then
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected = (1 - alpha) * pretrained[name] + alpha * tuned[name]
                torch.testing.assert_close(tensor, expected)
        assert set(rows["method"]) == {method}
        assert len(rows) == 4 * len(images)
        with torch.inference_mode():
            probabilities = network(inputs)[:, outputs_of_classes].softmax(dim=1)
        confidences[alpha] = rows[rows["dataset"] == "blue"]["confidence"].to_numpy()
        np.testing.assert_allclose(confidences[alpha], probabilities.amax(dim=1), atol=1e-3)
    assert not np.allclose(confidences[0.25], confidences[0.75])
    # and the table has a line for each
    mri = pd.read_csv(averages.folder / "reports/tiny/tables/mri.csv")
    assert {"wise_ft-alpha0.25", "wise_ft-alpha0.75"} < set(mri["method"])

"""Fisher information of the pretrained model, which EWC's trainings on all targets share."""

import json

import pandas as pd
import pytest
import safetensors.torch

pytestmark = pytest.mark.thorough

EWC = ("methods=[ewc]",)
FISHER = "results/tiny/paper/fisher/tiny_cnn/none/pretrained/all"
CHECKPOINT = "results/tiny/paper/finetune/tiny_cnn/{target}/ewc/all/0/checkpoint.safetensors"


def test_one_job_for_each_seed_serves_all_targets_and_is_recorded(finished_copy):
    # Given: a finished project without EWC
    # When: EWC is added on two targets
    planned = finished_copy.planned("tables", config=EWC)
    finished_copy.snakemake("tables", "--cores", "2", config=EWC)
    # Then: there is one Fisher information, of the pretrained model, and two trainings have it as
    # an input
    assert planned["compute_fisher"] == 1 and planned["finetune"] == 2
    file = finished_copy.folder / f"{FISHER}/0/2000.safetensors"
    assert sum(float(tensor.sum()) for tensor in safetensors.torch.load_file(file).values()) > 0
    for target in ("red", "green"):
        record = (finished_copy.folder / CHECKPOINT.format(target=target)).with_name(
            "provenance.json"
        )
        assert f"{FISHER}/0/2000.safetensors" in json.loads(record.read_text())["inputs"]
    costs = pd.read_csv(finished_copy.folder / "reports/tiny/tables/cost.csv").set_index("method")
    # two trainings, two evaluations, that of the pretrained model, and one Fisher information
    assert costs.loc["ewc", "jobs"] == 2 + 2 + 1 + 1


def test_without_a_proxy_and_with_a_swept_weight(finished_copy):
    swept = ("methods=[ewc]", "method_settings={ewc: {weight: [1, 10]}}", "seeds=[0,1]")
    assert finished_copy.planned("tables", config=swept)["compute_fisher"] == 2, "one for each seed"
    alone = ("methods=[ewc]", "reference=none")
    planned = finished_copy.planned("tables", config=alone)
    assert planned["finetune"] == 2 and "compute_fisher" not in planned

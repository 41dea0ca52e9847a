"""Merges of large networks are computed tensor by tensor.

Ten parents do not take ten times the memory.
"""

import json
import subprocess
import sys

import pytest

from tiny.projects.project import ROOT

PARENTS = [f"ft, seed {seed}" for seed in range(10)]
LIMIT = 3e9  # bytes
# One process writes the parents, so that the memory measured in the other is the merge's.
STORE = """
import sys, timm, torch
from pathlib import Path
from safetensors.torch import save_file

state = timm.create_model("vit_base_patch16_224").state_dict()
for number in range(10):
    generator = torch.Generator().manual_seed(number)
    changed = {
        name: value + 0.01 * torch.randn(value.shape, generator=generator)
        for name, value in state.items()
    }
    save_file(changed, Path(sys.argv[1], f"{number}.safetensors"))
"""
MERGE = """
import json, resource, sys, timm, torch
from pathlib import Path
from rib.models.checkpoint import apply
from rib.models.merge import Merge

torch.set_num_threads(1)
folder, mixture, parents = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
network = timm.create_model("vit_base_patch16_224")
files = {parent: folder / f"{number}.safetensors" for number, parent in enumerate(parents)}
apply(network, Merge(**mixture) if "form" in mixture else mixture, files)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parents")
    subprocess.run([sys.executable, "-c", STORE, folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soup", "model_stock", "ties", "dare", "task_arithmetic"])
def test_a_merge_of_ten_vit_b_16_takes_less_than_3_gb(stored, name):
    settings = {"ties": {"density": 0.2, "scaling": 1.0}, "dare": {"density": 0.1, "scaling": 0.4}}
    mixture = dict.fromkeys(PARENTS, 0.1)
    if name in ("model_stock", "ties", "dare"):
        algorithm = ROOT / f"workflow/lib/rib/methods/{name}.py"
        mixture = {
            "form": "merge",
            "algorithm": str(algorithm),
            "parents": PARENTS,
            "run": "m/t/x/all/0",
        }
        mixture["settings"] = settings.get(name, {})
    elif name == "task_arithmetic":
        mixture = {"pretrained": -3.0, **dict.fromkeys(PARENTS, 0.4)}
    command = [sys.executable, "-c", MERGE, stored, json.dumps(mixture), json.dumps(PARENTS)]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ROOT / "workflow/lib"},
    )
    peak = int(done.stdout.split()[-1])
    print(f"{name}: {peak / 1e9:.2f} GB")
    assert peak < LIMIT

"""Merges of large networks are computed tensor by tensor.

Ten parents do not take ten times the memory.
"""

import json
import subprocess
import sys

import pytest

from tiny.projects.project import ROOT

pytestmark = pytest.mark.slow

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


# An average, and an algorithm that reads all parents' values of a tensor at once.
SOUP = dict.fromkeys(PARENTS, 0.1)
TIES = {
    "form": "merge",
    "algorithm": str(ROOT / "workflow/lib/rib/methods/ties.py"),
    "parents": PARENTS,
    "run": "m/t/x/all/0",
    "settings": {"density": 0.2, "scaling": 1.0},
}


@pytest.mark.parametrize("mixture", [SOUP, TIES], ids=["soup", "ties"])
def test_a_merge_of_ten_vit_b_16_takes_less_than_3_gb(stored, mixture):
    command = [sys.executable, "-c", MERGE, stored, json.dumps(mixture), json.dumps(PARENTS)]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ROOT / "workflow/lib"},
    )
    assert int(done.stdout.split()[-1]) < LIMIT

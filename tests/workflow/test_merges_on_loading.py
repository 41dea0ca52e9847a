"""Merges and ensembles that are computed on loading.

Their jobs, and what an edit of an algorithm makes again.
"""

import json
import re

import pytest
import safetensors.torch
import yaml

from tiny.projects.project import methods, rows_of

pytestmark = pytest.mark.thorough

PARENTS = {
    "mine_ties": ["ft", "lwf"],
    "mine_fisher": ["ft", "lwf"],
    "mine_dawin": ["ft"],
    "mine_stock": ["ft"],
}
SETTINGS = {"mine_ties": {"density": 0.5, "scaling": 1.0}, "mine_fisher": {"fisher_images": 7}}
ALGORITHMS = {"mine_stock": "model_stock"}
RUNS = "results/tiny/paper"
TIES = "workflow/lib/rib/methods/ties.py"


@pytest.fixture
def merging(finished_copy):
    """A finished project, with entries of merges of what has been trained in it."""
    entries = {
        name: {
            "label": name,
            "algorithm": ALGORITHMS.get(name, name.removeprefix("mine_")),
            "form": "ensemble" if name == "mine_dawin" else "merge",
            "parents": parents,
            "fewest_parents": 2 if name == "mine_stock" else 1,
            "settings": SETTINGS.get(name, {}),
            "fisher_information": name == "mine_fisher",
            "source": "tests",
            "style": {"colour": "#010203", "marker": marker},
        }
        for (name, parents), marker in zip(PARENTS.items(), "osvD", strict=True)
    }
    (finished_copy.folder / "mine/methods.yaml").write_text(yaml.safe_dump(entries))
    return finished_copy


def chosen(*names):
    return (f"methods=[{','.join(names)}]", "targets=[red]")


def test_merges_are_evaluated_from_their_parents_and_an_edit_makes_only_their_own_evaluation_again(
    merging,
):
    names = ("mine_ties", "mine_fisher", "mine_dawin")
    planned = merging.planned("tables", config=chosen(*names))
    jobs = {"compute_fisher": 2, "evaluate": 3}
    assert {rule: planned.get(rule) for rule in jobs} == jobs and "finetune" not in planned
    files = [f"{RUNS}/evaluate/tiny_cnn/red/{name}/all/0/tiny.parquet" for name in names]
    merging.snakemake(*files, "--cores", "2", config=chosen(*names))
    manifest_of_ties = (merging.folder / files[0]).with_suffix(".manifest.json")
    networks = json.loads(manifest_of_ties.read_text())["networks"]
    made = {"form": "merge", "algorithm": "ties", "run": "tiny_cnn/red/mine_ties/all/0"}
    made |= {"parents": ["ft", "lwf"], "settings": SETTINGS["mine_ties"]}
    assert networks == [{"method": "mine_ties", "alpha": None, "merge": made}]
    for parent in ("ft", "lwf"):
        path = merging.folder / f"{RUNS}/fisher/tiny_cnn/red/{parent}/all/0/7.safetensors"
        found = safetensors.torch.load_file(path)
        assert sum(float(tensor.sum()) for tensor in found.values()) > 0
    scores = [rows_of(merging.folder / file)["margin"].tolist() for file in files]
    # ft and lwf hardly differ after so few steps, so that their merges may have the same scores.
    assert scores[2] not in scores[:2] and len(set(map(len, scores))) == 1
    merging.edit(TIES, "+ scaling * tau", "+ tau * scaling")
    printed = merging.listed(*files, config=chosen(*names))
    assert methods(printed, "evaluate") == {"mine_ties"} and merging.planned(
        *files, config=chosen(*names)
    ) == {"evaluate": 1}


def test_what_cannot_be_merged_is_refused_before_anything_runs(merging):
    printed = merging.snakemake("-n", config=chosen("mine_stock"), check=False)
    assert re.search("'mine_stock' .* 2 parents", printed)
    merging.edit("mine/methods.yaml", "- lwf", "- visual_prompt")
    printed = merging.snakemake("-n", config=chosen("mine_fisher"), check=False)
    assert re.search("'mine_fisher': its parent 'visual_prompt' ", printed)

"""Config files for the ImageNet family, as they would be run: nothing of their data is here."""

import pytest

from tiny.projects.project import Project, copy_project

FIRST, IN_1K, DATACOMP = (
    ("--configfile", f"workflow/configs/{name}.yaml")
    for name in ("imagenet_first", "in_1k", "datacomp")
)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return Project(copy_project(tmp_path_factory.mktemp("imagenet") / "project"), family="imagenet")


@pytest.mark.thorough
def test_the_first_run_trains_all_rates_with_both_optimisers(imagenet):
    models, targets, rates, optimizers, merged = 3, 4, 4, 2, 1
    fine_tuned = rates * optimizers
    with_probe = 2  # lp_ft and the probe that it starts from
    planned = imagenet.planned(*FIRST)
    assert planned["finetune"] == models * targets * (fine_tuned + with_probe)
    runs_of_target = fine_tuned * (1 + merged) + with_probe
    assert planned["evaluate"] == models * (1 + targets * runs_of_target)
    assert planned["download"] == models + 4
    plan = imagenet.rib("plan", *FIRST)
    assert "imagenet_sketch" in plan
    assert "imagenet_val" not in plan, "it needs a login"


def test_in_1k_fine_tunes_on_the_training_images_with_recipes_of_released_code(imagenet):
    planned = imagenet.planned(*IN_1K)
    methods, seeds = 4, 3  # ft, lp_ft, the probe that it starts from, and flyp
    assert planned["finetune"] == methods * seeds
    assert planned["evaluate"] == 1 + (methods + 2) * seeds, "WiSE-FT and its curve are merges"
    assert planned["analyse_in_1k"] == 1
    assert "analyse_effective_robustness" not in planned, "it is of targets out of distribution"
    plan = imagenet.rib("plan", *IN_1K)
    assert "imagenet_train: 148GB" in plan
    # without its budget of steps, the recipes' ten epochs
    images_of_budget = methods * seeds * 2500 * 512
    images_of_recipes = methods * seeds * 10 * 1281167
    assert f"Training   {images_of_budget:,} images" in plan
    plan = imagenet.rib("plan", *IN_1K, config=("training={steps: default}",))
    assert f"Training   {images_of_recipes:,} images" in plan


@pytest.mark.parametrize("command", ["snakemake", "rib"])
def test_datacomp_asks_for_its_names_first(imagenet, command):
    if command == "snakemake":
        printed = imagenet.snakemake("-n", *DATACOMP, check=False)
    else:
        printed = imagenet.rib("plan", *DATACOMP, check=False)
    assert "'open_clip/ViT-B-32/commonpool_s_s13m_b4k'" in printed
    assert "`rib lock`" in printed
    assert "Traceback (most" not in printed

"""The paper's benchmark as it would be run.

Nothing of its data is here, and nothing is executed.
"""

import re

import pytest

from tiny.projects.project import Project, copy_project, jobs

pytestmark = pytest.mark.thorough

MODELS, TARGETS, SIZES = 7, 7, 2
MODEL = "vit_base_patch16_224.augreg_in1k"
PARTS = 4  # of C
EVALUATION_GROUPS = 1 + PARTS
# Of the paper's nine methods, WiSE-FT and the soup merge. Full fine-tuning has two recipes, and so
# has WiSE-FT.
TRAINED, MERGED = 7 + 1, 2 + 1


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return Project(copy_project(tmp_path_factory.mktemp("imagenet") / "project"), family="imagenet")


@pytest.fixture(scope="module")
def printed(imagenet):
    """What a dry-run of the default grid prints."""
    return imagenet.snakemake("-n", "--quiet", "rules")


def test_the_papers_grid_is_planned_without_data(printed):
    planned = jobs(printed)
    assert planned["finetune"] == MODELS * TRAINED * TARGETS * SIZES
    assert planned["check_labels"] == MODELS
    assert (
        planned["evaluate"]
        == MODELS * (1 + (TRAINED + MERGED) * TARGETS * SIZES) * EVALUATION_GROUPS
    )
    assert (
        planned["analyse_samples"]
        == planned["analyse_effective_robustness"]
        == planned["analyse_models"]
        == 1
    )
    assert planned["draw_figures"] == 1
    # nine datasets; val with its kit and C in four parts; seven models
    assert planned["download"] == 7 + 2 + 4 + MODELS
    # three geometries, and C in one form for all
    assert planned["prepare"] == 3 * 8 + 1


def test_plan_says_what_the_dry_run_says(imagenet, printed):
    plan, planned = imagenet.rib("plan"), jobs(printed)
    (line,) = re.findall(r"^Jobs .*\((.*)\)", plan, re.M)
    counts = {
        stage: int(n.replace(",", "")) for n, stage in re.findall(r"(\d[\d,]*) ([a-z]+)", line)
    }
    assert counts == {
        "preparation": planned["prepare"],
        "training": planned["finetune"] + planned.get("compute_fisher", 0),
        "evaluation": planned["evaluate"],
    }
    assert "Download   71.1GB" in plan
    assert "imagenet-cartoon.tar.gz" in plan, "no size is stated for it"


def test_objectnet_is_a_target_only_when_that_is_accepted(imagenet, printed):
    assert re.search("'objectnet' is evaluated but not a target", printed)
    config = ("accept_terms=objectnet_tuning", "methods=[ft]")
    assert imagenet.planned(config=config)["finetune"] == MODELS * 2 * (TARGETS + 1) * SIZES


def test_training_images_are_the_reference_on_demand(imagenet):
    planned = imagenet.planned(config=("reference=imagenet_train",))
    assert planned["prepare"] == 3 * 8 + 2 and planned["download"] == 7 + 2 + 4 + MODELS + 1
    assert "pretraining proxy" in imagenet.rib("plan")
    assert "pretraining proxy" not in imagenet.rib("plan", config=("reference=none",))


@pytest.mark.parametrize(
    ("compute", "decoders", "processors"),
    [
        ("{}", 8, 10),
        ("{decode_workers: 3}", 3, 5),
        ("{device: cpu}", 4, 4),
    ],
)
def test_a_job_asks_for_the_processors_that_its_decoding_takes(
    imagenet, compute, decoders, processors
):
    config = ("methods=[ft]", "recipes=[paper]", f"models=[{MODEL}]", "targets=[imagenet_c]")
    printed = imagenet.listed("--cores", "64", config=(*config, f"compute={compute}"))
    asked = {}
    for job in printed.split("\nrule evaluate:")[1:]:
        (group,) = re.findall(r"^    wildcards: .*group=(\w+)", job, re.M)[:1]
        threads = re.findall(r"^    threads: (\d+)", job.partition("\n[")[0], re.M)
        (cpus,) = re.findall(r"^    resources: .*cpus_per_task=(\d+)", job, re.M)[:1]
        asked.setdefault(group, set()).add((threads[0] if threads else "1", cpus))
    on_cpu = compute == "{device: cpu}"
    assert asked == {
        "imagenet": {("1", "1" if on_cpu else "4")},
        "imagenet_c": {(str(decoders), str(processors))},
    }


def test_published_numbers_need_the_pretrained_models_alone(imagenet):
    printed = imagenet.snakemake("published", "-n", config=("reference=none", "models=all"))
    assert "model 'vit_base_patch16_224.mae' is left out" in printed
    planned = jobs(printed)
    assert (
        planned["evaluate"] == 30
        and "finetune" not in planned
        and planned["analyse_published"] == 1
    )


def test_a_pair_that_does_not_exist_says_which_do(imagenet):
    printed = imagenet.snakemake(
        "-n", config=("models=[vit_small_patch16_224.sam_in1k]",), check=False
    )
    assert re.search("vit_small_patch16_224.sam_in1k'.* augreg_in1k.* vit_base_patch32", printed)


def test_a_dataset_of_fewer_classes_has_a_line_where_val_is_scored_among_them(imagenet):
    config = ("targets=[imagenet_a]", "methods=[ft]")
    names = "imagenet_val,imagenet_val_r,imagenet_a,imagenet_r"
    planned = imagenet.planned(config=(*config, f"datasets=[{names}]"))
    assert planned["prepare"] == 3 * 4 and planned["evaluate"] == MODELS * (1 + 2 * SIZES) * 2
    assert planned["analyse_effective_robustness"] == 1
    planned = imagenet.planned(
        config=(*config, f"datasets=[{names.replace('imagenet_val_r,', '')}]")
    )
    assert "analyse_effective_robustness" not in planned

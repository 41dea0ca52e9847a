"""What would be run, for the real families; nothing is executed and torch is never imported."""

import re
import sys

import pytest

from tiny.project import PAGE, TABLES, Project, copy_project, jobs


@pytest.fixture
def emoji(tmp_path):
    return Project(copy_project(tmp_path / "project"), family="emoji")


def test_the_default_grid(emoji):
    models, trained, merged, targets, datasets = 2, 2, 3, 4, 8  # WiSE-FT at three alphas
    assert emoji.planned() == {
        "download": datasets + models,
        "prepare": datasets,
        "list_group": 1,
        "convert_model": models,
        "finetune": models * trained * targets,
        "merge_weights": models * merged * targets,
        "evaluate_run": models * (1 + (trained + merged) * targets),
        **TABLES,
        "compare_models": 1,
        "plot_figure": 13,
        **PAGE,
    }


def test_the_full_grid_is_one_line_away(emoji):
    config = ("models=all", "methods=all", "targets=all", "image_size=224", "seeds=[0,1]")
    planned = emoji.planned(config=config)
    # of the CNNs of this family; without what needs ViTs, a reference, held-out images, a sweep or datasets that are no targets
    trained, merged, over_seeds = 22, 12, 2
    assert planned["prepare"] == 8 and planned["convert_model"] == 3
    assert planned["finetune"] == 3 * trained * 8 * 2
    assert planned["merge_weights"] == 3 * 8 * (merged * 2 + over_seeds)
    assert planned["evaluate_run"] == 3 * (1 + 8 * ((trained + merged) * 2 + over_seeds))


def test_native_sizes_prepare_each_geometry(emoji):
    assert emoji.planned(config=("models=all", "image_size=native"))["prepare"] == 3 * 8


def test_a_parent_that_is_not_asked_for_is_added(emoji):
    printed = emoji.snakemake("-n", config=("methods=[wise_ft]",))
    assert "method 'ft' is added to the grid: 'wise_ft' averages its weights" in printed
    assert jobs(printed)["finetune"] == 2 * 4


def test_a_dry_run_does_not_import_torch(emoji):
    printed = emoji.run(sys.executable, "-m", "snakemake", "-n", PYTHONPROFILEIMPORTTIME="1")
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", printed, re.M))
    assert "snakemake" in imported and "rib.config.grid" in imported
    # (pandas comes with Snakemake's plugin for SLURM, which every start of Snakemake imports)
    assert not {name for name in imported if name.split(".")[0] in ("torch", "timm", "torchvision", "matplotlib")}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model=all", r"config\.yaml or --config: unknown key 'model' \(did you mean 'models'\?\); allowed are"),
        ("models=[resnet]", "unknown model 'resnet'; known are "),
        ("methods=[fft]", r"unknown method 'fft' \(did you mean 'ft'\?\); known are"),
        ("targets=imagenet", "unknown target 'imagenet'; known are"),
        ("catalog=no/such/folder", "catalog: the folder no/such/folder does not exist; correct the path"),
        ("protocol=held_out", "held_out is not possible for family emoji"),
        ("recipes=[adam]", r"unknown recipe 'adam' \(did you mean 'adamw'\?\); known are"),
        ("training={epochs: 1, steps: 2}", "config, training: epochs and steps are both given; give one of them"),
        ("method_settings={ft: {epochs: 0}}", "method 'ft': epochs is 0; give a whole number from 1"),
        ("method_settings={wise_ft: {recipe: paper}}", "method_settings, wise_ft: unknown setting 'recipe'"),
    ],
)
def test_bad_choices_are_one_sentence(emoji, config, message):
    printed = emoji.snakemake("-n", config=(config,), check=False)
    assert re.search(message, printed) and "Traceback" not in printed
    assert not any((emoji.folder / name).exists() for name in ("results", "reports", "data/raw"))


def test_recipes_multiply_the_methods(emoji):
    planned = emoji.planned(config=("recipes=[adamw,paper]",))
    assert planned["finetune"] == 2 * 2 * 2 * 4 and planned["merge_weights"] == 2 * 2 * 3 * 4


def test_a_doubly_claimed_wnid_stops_before_any_job(emoji):
    path = emoji.folder / "workflow/catalog/classes/emoji.csv"
    text = path.read_text()
    path.write_text(text.replace(",n02219486,", ",n02206856,"))
    printed = emoji.snakemake("-n", check=False)
    assert re.search(r"emoji\.csv line \d+: n02206856 belongs to both ant and honeybee", printed)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("families/...yaml", "title: x", r"own/families/\.\.\.yaml: the file name is the name of the family"),
        ("published.csv", "model,dataset,accuracy,source\na,b,x,s\n", r"own/published\.csv line 2: accuracy is 'x'"),
        ("models.yaml", "..: {}", r"own/models\.yaml: '\.\.' is not a valid name"),
    ],
)
def test_what_is_wrong_in_a_folder_of_ones_own_is_one_sentence(emoji, name, text, message):
    (emoji.folder / "own" / name).parent.mkdir(parents=True)
    (emoji.folder / "own" / name).write_text(text)
    printed = emoji.snakemake("-n", config=("catalog=own",), check=False)
    assert re.search(message, printed) and "Traceback" not in printed and "UserError" not in printed


def test_an_entry_with_an_unknown_key_is_named_with_its_file(emoji):
    emoji.edit("workflow/catalog/models.yaml", "  label: EfficientNet-Lite0", "  lable: EfficientNet-Lite0")
    printed = emoji.snakemake("-n", check=False)
    assert re.search(
        r"catalog/models\.yaml: unknown key 'lable' in 'efficientnet_lite0' \(did you mean 'label'\?\)", printed
    )


def test_without_targets_no_models_are_compared(emoji):
    planned = emoji.planned(config=("datasets=[twemoji,fxemoji]",))
    assert "compare_models" not in planned and planned["compute_metrics"] == 1

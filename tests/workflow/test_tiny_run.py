"""The tiny family end to end: what is made, that it is reproducible, and what a change re-runs."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch

from rib.base.files import sha256
from rib.base.params import from_params
from rib.figures import write_figures
from rib.grid.figure_settings import FiguresSettings
from rib.models.checkpoint import xor_decompress
from rib.records import track as tracking
from rib.records.pull import restore_metadata
from tiny.projects.project import FIGURES, PAGE, TABLES, jobs, methods, rows_of

METHODS = ["ft", "linear_probe", "lwf", "wise_ft"]
DATASETS = ["red", "green", "blue", "copy"]
TARGETS = ["red", "green"]


def tables(project):
    """Tables of accuracy and RI by name."""
    return {
        name: pd.read_csv(project.folder / f"reports/tiny/tables/{name}.csv")
        for name in ("accuracy", "ri", "mri")
    }


def checkpoint_of(project, method):
    """Checkpoint of the tiny network fine-tuned on `red` by a method."""
    trainings = project.folder / "results/tiny/paper/finetune/tiny_cnn/red"
    return trainings / method / "all/0/checkpoint.safetensors"


def evaluation_of(project, method):
    """Folder of the rows of the tiny network fine-tuned on `red` by a method."""
    return project.folder / "results/tiny/paper/evaluate/tiny_cnn/red" / method / "all/0"


def prepared_images(project, dataset):
    """Folder of the prepared images of a dataset."""
    return project.folder / "results/tiny/prepare" / dataset / "160px-bicubic-crop1"


def test_a_linear_probe_is_stored_in_the_size_of_its_head(finished):
    project, _ = finished
    bytes_of_probe = checkpoint_of(project, "linear_probe").stat().st_size
    bytes_of_full_fine_tuning = checkpoint_of(project, "ft").stat().st_size
    features, classes, bytes_of_a_float = 256, 1000, 4
    bytes_of_head = (features + 1) * classes * bytes_of_a_float
    assert bytes_of_probe < bytes_of_head
    assert 5 * bytes_of_probe < bytes_of_full_fine_tuning


def test_rows_are_per_image_and_hold_all_that_metrics_need(finished):
    project, _ = finished
    rows = rows_of(evaluation_of(project, "ft") / "tiny.parquet")
    assert len(rows) == 80
    assert list(rows["dataset"].unique()) == ["blue", "copy", "green", "red"]
    assert rows["label"].max() == 4
    assert rows["confidence"].between(1 / 5, 1).all()

    correct = rows["prediction"] == rows["label"]
    assert correct.any()
    assert ((rows["rank"] == 0) == correct).all()
    assert (rows["margin"][correct] >= 0).all()

    log_prob = rows["log_prob"].astype(float)
    assert (log_prob <= np.log(rows["confidence"].astype(float)) + 1e-3).all()
    # Of a label's probability p the Brier score is at least (1 - p)^2 * C / (C - 1), if the
    # remaining probability is shared equally.
    lowest_brier = (1 - np.exp(log_prob)) ** 2 * 5 / 4
    assert (rows["brier"].astype(float) >= lowest_brier - 2e-3).all()
    assert (rows["brier"] <= 2).all()


def test_rows_say_which_photo_an_image_is_of(finished):
    """Given that `copy` has the photos of `red`, and `blue` has others."""
    project, _ = finished
    rows = rows_of(evaluation_of(project, "ft") / "tiny.parquet")
    photos = rows.groupby("dataset")["source_id"].agg(set)
    assert photos["red"] == photos["copy"]
    assert not photos["red"] & photos["blue"]


def test_records_say_what_was_made_from_what(finished):
    project, _ = finished
    checkpoint = checkpoint_of(project, "linear_probe")
    record = json.loads((checkpoint.parent / "provenance.json").read_text())
    name_of_checkpoint = str(checkpoint.relative_to(project.folder))
    assert record["outputs"][name_of_checkpoint] == sha256(checkpoint)
    for path, digest in record["inputs"].items():
        assert sha256(project.folder / path) == digest
    assert {"torch", "timm", "numpy"} <= set(record["versions"])
    assert record["cfg"]["settings"]["lr"] == 0.01


def test_rows_equal_those_of_a_network_loaded_without_the_library(finished):
    """Weights added up with safetensors and scored with plain timm, unfolded.

    The stored rows must say the same.
    """
    project, _ = finished
    images = np.load(prepared_images(project, "blue") / "images.npy")
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    label_space = json.loads((prepared_images(project, "blue") / "classes.json").read_text())
    logits_of_classes = [logits_of_class[0] for logits_of_class in label_space["indices"]]

    results = project.folder / "results/tiny"
    pretrained = safetensors.torch.load_file(results / "models/tiny_cnn/weights.safetensors")
    stored = safetensors.torch.load_file(checkpoint_of(project, "ft"))
    tuned = {**pretrained, **xor_decompress(stored, pretrained)}
    averaged = {
        name: (weights + tuned[name]) / 2 if weights.is_floating_point() else weights
        for name, weights in pretrained.items()
    }
    files = {
        "pretrained": results / "paper/evaluate/tiny_cnn/none/pretrained/all/0/tiny.parquet",
        "ft": evaluation_of(project, "ft") / "tiny.parquet",
        "wise_ft": evaluation_of(project, "wise_ft") / "tiny.parquet",
    }
    confidences = {}
    for method, weights in {"pretrained": pretrained, "ft": tuned, "wise_ft": averaged}.items():
        network = timm.create_model("test_efficientnet", num_classes=1000).eval()
        network.load_state_dict(weights)
        with torch.inference_mode():
            probabilities = network(inputs)[:, logits_of_classes].softmax(dim=1).numpy()
        rows = pq.read_table(files[method]).to_pandas()
        rows_of_blue = rows[rows["dataset"] == "blue"]
        assert (rows_of_blue["prediction"] == probabilities.argmax(axis=1)).all()
        confidences[method] = rows_of_blue["confidence"].to_numpy()
        np.testing.assert_allclose(confidences[method], probabilities.max(axis=1), atol=1e-3)
    assert not np.allclose(confidences["pretrained"], confidences["ft"])
    assert not np.allclose(confidences["ft"], confidences["wise_ft"])


def test_mri_follows_from_the_accuracies_by_the_papers_definition(finished):
    project, _ = finished
    tables_of_grid = tables(project)
    accuracy = tables_of_grid["accuracy"].set_index(["method", "target", "dataset"])["accuracy"]

    def on_other_datasets(method, target, training_set):
        """Mean accuracy on all datasets but the target."""
        others = [dataset for dataset in DATASETS if dataset != target]
        return np.mean([accuracy[method, training_set, dataset] for dataset in others])

    before = np.mean([on_other_datasets("pretrained", target, "none") for target in TARGETS])
    assert list(tables_of_grid["mri"]["method"]) == METHODS
    for line in tables_of_grid["mri"].itertuples():
        after = np.mean([on_other_datasets(line.method, target, target) for target in TARGETS])
        assert line.ood_before == pytest.approx(before, abs=1e-5)
        assert line.ood_after == pytest.approx(after, abs=1e-5)
        assert line.mri == pytest.approx(after - before, abs=1e-5)


def test_mri_json_has_the_numbers_of_the_table(finished):
    project, _ = finished
    folder = project.folder / "reports/tiny/tables"
    mri_of_models = json.loads((folder / "mri.json").read_text())
    table = pd.read_csv(folder / "mri.csv").set_index("method")
    assert mri_of_models["tiny_cnn"]["ft"] == pytest.approx(table.loc["ft", "mri"], abs=1e-6)


def test_figures_are_drawn(finished):
    project, _ = finished
    figures = ("before_after", "radar", "ri_matrix", "accuracy_matrix", "examples", "protocol")
    for figure in (*figures, "ranking", "cost", "training"):
        for ending in ("png", "pdf", "csv"):
            file = project.folder / f"reports/tiny/figures/{figure}.{ending}"
            assert file.stat().st_size > 100


def draw_figures(record, names, folder):
    """Draw figures in one process, in the order of their names; gives bytes by name of the file."""
    folder.mkdir()
    figures = {name: record["cfg"]["figures"][name] for name in names}
    settings = from_params(FiguresSettings, {**record["cfg"], "figures": figures})
    files = {}
    for name in settings.figures:
        files[name] = {ending: folder / f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
    write_figures(settings, files, folder / "plot.log")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.thorough
def test_figures_have_the_same_bytes_in_whatever_order_one_process_draws_them(
    finished, tmp_path, monkeypatch
):
    project, _ = finished
    monkeypatch.chdir(project.folder)
    record = json.loads(Path("reports/tiny/figures/figures.provenance.json").read_text())
    names = list(record["cfg"]["figures"])
    forwards = draw_figures(record, names, tmp_path / "forwards")
    backwards = draw_figures(record, reversed(names), tmp_path / "backwards")
    assert len(forwards) == 3 * len(names) > 30
    differing = [name for name in forwards if forwards[name] != backwards[name]]
    assert differing == []


def test_a_plain_run_makes_tables_figures_and_the_page(finished):
    project, printed = finished
    made = tables(project)
    assert len(made["accuracy"]) == (1 + 4 * 2) * 4 and set(made["accuracy"]["n"]) == {20}
    assert len(made["ri"]) == 4 * 2 and list(made["mri"]["method"]) == METHODS
    assert "Page: reports/tiny/index.html" in printed
    assert not any((project.folder / "work").iterdir())


def test_methods_are_compared_and_ranked_by_the_mri_of_the_table(finished):
    project, _ = finished
    folder = project.folder / "reports/tiny/tables"
    mri = tables(project)["mri"].set_index("method")["mri"]
    comparisons = pd.read_csv(folder / "comparisons.csv")
    against_no_change, among_each_other = 4, 6
    assert len(comparisons) == against_no_change + among_each_other
    for line in comparisons.itertuples():
        mri_of_other = 0 if line.other == "pretrained" else mri[line.other]
        assert line.difference == pytest.approx(mri[line.method] - mri_of_other, abs=1e-5)
        assert line.p <= line.p_holm
    ranking = pd.read_csv(folder / "ranking.csv")
    assert ranking["mri"].tolist() == pytest.approx(sorted(mri, reverse=True), abs=1e-5)


def test_histories_and_costs_have_a_line_for_each_method_run_and_epoch(finished):
    project, _ = finished
    folder = project.folder / "reports/tiny/tables"
    trained_methods, epochs = 3, 2
    assert len(pd.read_csv(folder / "training.csv")) == trained_methods * len(TARGETS) * epochs
    assert (pd.read_csv(folder / "cost.csv")["seconds"] > 0).all()


def test_identical_images_are_counted_on_the_page_and_in_the_manifests(finished):
    """Given that `copy` has the 20 photos of `red`, each of the two shares 20 with the other."""
    project, _ = finished
    data = pd.read_csv(project.folder / "reports/tiny/tables/data.csv").set_index("dataset")
    assert data.loc[["red", "copy", "blue"], "shared"].tolist() == [20, 20, 0]
    assert data.loc["red", "shared_with"] == "Copy 20"
    assert data["other_class"].sum() == 0
    for dataset in ("red", "copy", "blue"):
        manifest = json.loads((prepared_images(project, dataset) / "manifest.json").read_text())
        assert manifest["identical"] == 0


def test_tables_of_data_and_models_say_what_was_evaluated(finished):
    project, _ = finished
    folder = project.folder / "reports/tiny/tables"
    data = pd.read_csv(folder / "data.csv").set_index("dataset")
    assert set(data.index) == set(DATASETS)
    assert set(data["images"]) == set(data["evaluated"]) == set(data["objects"]) == {20}
    assert set(data["classes"]) == {5} and data["left_out"].isna().all()
    (model,) = pd.read_csv(folder / "models.csv").to_dict("records")
    assert model["pixels"] == 160


@pytest.mark.thorough
def test_two_jobs_at_a_time_give_the_same_bytes(finished, project):
    finished_project, _ = finished
    one_at_a_time = finished_project.products()
    project.snakemake("--cores", "2")
    two_at_a_time = project.products()
    assert one_at_a_time.keys() == two_at_a_time.keys()
    assert len(one_at_a_time) > 50
    assert [name for name in one_at_a_time if one_at_a_time[name] != two_at_a_time[name]] == []


LIBRARY = "workflow/lib/rib"
# Rules of tables and figures. Histories too, since underfitted runs are marked in their table.
MADE_OF_ROWS = {
    "compute_metrics",
    "analyse_comparison",
    "analyse_samples",
    "analyse_summary",
    "analyse_cost",
    *FIGURES,
    "analyse_training",
    "analyse_cells",
    "analyse_data_and_models",
}


def test_what_no_result_depends_on_re_runs_nothing(finished_copy):
    """Comments, docstrings, messages, and the code that fetches, starts and records jobs."""
    for file, old, new in [
        ("methods/lwf.py", "with distillation of", "with, as said, distillation of"),
        ("training/divergence.py", "# resuming would diverge again", "# it would diverge again"),
        ("training/fit.py", "training images are correct", "training images are right"),
        ("evaluation/evaluate.py", "a logit is not finite", "a logit is infinite"),
        ("data/fetch/curl.py", "POLL = 0.5", "POLL = 0.6"),
        ("jobs/gpu_lock.py", "POLL = 0.5", "POLL = 0.6"),
        ("jobs/messages.py", "out of memory", "no memory is left"),
        ("records/environment.py", '"torch",', '"torch", "sklearn",'),
        ("jobs/job.py", 'COPY = ".copy"', 'COPY = ".copied"'),
    ]:
        finished_copy.edit(f"{LIBRARY}/{file}", old, new)
    assert finished_copy.planned() == {}


def test_an_edit_of_how_records_are_read_computes_costs_again(finished_copy):
    """Durations in cost.csv come from records."""
    old = "records[path] = own_record"
    finished_copy.edit(f"{LIBRARY}/records/provenance.py", old, "records[path] = {**own_record}")
    assert finished_copy.planned() == {"analyse_cost": 1, "draw_figures": 1, **PAGE}


@pytest.mark.thorough
def test_an_edit_of_how_runs_are_scored_scores_all_of_them_again(finished_copy):
    """At once, though trainings, which are done, waited for scores of the pretrained model."""
    finished_copy.edit(f"{LIBRARY}/evaluation/evaluate.py", "tables = []", "tables = [*()]")
    planned = finished_copy.planned()
    pretrained, methods_and_targets = 1, len(METHODS) * len(TARGETS)
    assert planned["evaluate"] == pretrained + methods_and_targets
    assert "finetune" not in planned


@pytest.mark.thorough
def test_a_threshold_of_the_family_takes_the_rank_of_methods_that_did_not_get_there(finished_copy):
    """Two epochs do not fit the images. Nothing is trained or scored again."""
    family = finished_copy.folder / "mine/families/tiny.yaml"
    family.write_text(family.read_text().replace("fit_threshold: none", "fit_threshold: 0.99"))
    assert set(finished_copy.planned()) <= {*MADE_OF_ROWS, *PAGE}
    folder = "reports/tiny/tables"
    finished_copy.snakemake("--cores", "1", f"{folder}/summary.md", f"{folder}/training.csv")
    tables_of_grid = finished_copy.folder / folder
    fit = pd.read_csv(tables_of_grid / "fit.csv")
    assert set(fit[fit["underfitted"] == "yes"]["method"]) == {"ft", "wise_ft"}
    assert fit["fit"].notna().all()
    ranking = pd.read_csv(tables_of_grid / "ranking.csv")
    assert set(ranking["method"]) == {"linear_probe", "lwf"}
    ri = pd.read_csv(tables_of_grid / "ri.csv").set_index("method")
    underfitted = ri["underfitted"].to_dict()
    assert underfitted == {"ft": 1, "linear_probe": 0, "lwf": 0, "wise_ft": 1}
    training = pd.read_csv(tables_of_grid / "training.csv")
    assert set(training.query("underfitted == 1")["method"]) == {"ft"}
    assert "†" in (tables_of_grid / "summary.md").read_text()


def test_editing_the_lwf_module_re_runs_lwf_and_what_depends_on_it(finished_copy):
    finished_copy.edit(f"{LIBRARY}/methods/lwf.py", "self.weight * ", "1.0 * self.weight * ")
    printed = finished_copy.listed()
    assert jobs(printed) == {"finetune": 2, "evaluate": 2, **TABLES, "draw_figures": 1, **PAGE}
    assert methods(printed, "finetune") == methods(printed, "evaluate") == {"lwf"}


@pytest.mark.thorough
def test_code_of_networks_trains_and_scores_all_again_in_one_run(finished_copy):
    """Tables wait for verdicts on labels, which must not hide that trainings have changed."""
    finished_copy.edit(
        f"{LIBRARY}/models/state.py", "\n\ndef for_inf", "\nNONE = None\n\n\ndef for_inf"
    )
    planned = finished_copy.planned()
    assert planned["finetune"] == 3 * len(TARGETS)
    assert planned["evaluate"] == 1 + len(METHODS) * len(TARGETS)


@pytest.mark.thorough
def test_rows_that_are_lost_are_made_again_beside_what_has_changed(finished_copy):
    rows = "results/tiny/paper/evaluate/tiny_cnn/none/pretrained/all/0/tiny.parquet"
    (finished_copy.folder / rows).unlink()
    finished_copy.edit("workflow/catalog/methods.yaml", "{lr: 0.001}", "{lr: 0.002}")
    printed = finished_copy.listed()
    assert methods(printed, "finetune") == {"ft"}
    assert methods(printed, "evaluate") == {"pretrained", "ft", "wise_ft"}


@pytest.mark.thorough
def test_a_setting_of_ft_re_runs_ft_and_its_merge(finished_copy):
    finished_copy.edit("workflow/catalog/methods.yaml", "{lr: 0.001}", "{lr: 0.002}")
    printed = finished_copy.listed()
    assert methods(printed, "finetune") == {"ft"}
    assert methods(printed, "evaluate") == {"ft", "wise_ft"}


def test_a_new_target_adds_its_own_jobs_only(finished_copy):
    planned = finished_copy.planned(config=("targets=[red,green,blue]",))
    of_new_target = {"finetune": 3, "evaluate": 4}
    # What is drawn of the pretrained model alone stays.
    assert planned == {**of_new_target, **TABLES, "draw_figures": 1, **PAGE}


@pytest.mark.thorough
def test_a_new_pinned_digest_re_runs_all_that_is_made_from_the_archive(finished_copy):
    entry = finished_copy.folder / "mine/datasets.yaml"
    entry.write_text(re.sub(r"(?s)(\ngreen:.*?sha256:)\w+", r"\g<1>" + 64 * "0", entry.read_text()))
    planned = finished_copy.planned()
    assert planned["download"] == 1
    assert planned["prepare"] == 1
    assert planned["finetune"] == 3
    assert planned["evaluate"] == 9


@pytest.mark.thorough
def test_a_pending_download_hides_no_other_work(finished_copy):
    (finished_copy.folder / "data/raw/blue/blue.zip").unlink()
    finished_copy.edit("workflow/lib/rib/methods/lwf.py", "self.weight * ", "1.0 * self.weight * ")
    planned = finished_copy.planned(config=("seeds=[0,5]",))
    edited_method, new_seed = 2, 6
    assert planned["finetune"] == edited_method + new_seed
    assert planned["compute_metrics"] == 1


@pytest.mark.thorough
def test_how_a_model_is_drawn_is_no_reason_to_train_it_again(finished_copy):
    finished_copy.edit("mine/models.yaml", "label: tiny_cnn", "label: another")
    assert set(finished_copy.planned()) <= {*FIGURES, "analyse_summary", *PAGE}


@pytest.mark.thorough
def test_editing_the_figures_style_draws_them_again(finished_copy):
    finished_copy.edit("workflow/lib/rib/figures/rib.mplstyle", "font.size: 9", "font.size: 8")
    assert finished_copy.planned() == {**FIGURES, **PAGE}


@pytest.mark.thorough
def test_a_lost_part_of_a_prepared_dataset_is_made_again(finished_copy):
    """Also of `blue`, which is only evaluated."""
    for dataset, file in (("red", "index.parquet"), ("blue", "images.npy")):
        (prepared_images(finished_copy, dataset) / file).unlink()
    assert finished_copy.planned(config=("seeds=[5]", "methods=[ft]"))["prepare"] == 2


@pytest.mark.thorough
def test_figures_can_be_drawn_again_and_nothing_before_them_is(finished_copy):
    shutil.rmtree(finished_copy.folder / "reports/tiny/figures")
    assert finished_copy.planned() == {**FIGURES, **PAGE}
    two_figures = [f"reports/tiny/figures/{name}.png" for name in ("radar", "cost")]
    assert finished_copy.planned(*two_figures) == {"draw_figures": 1}


def test_a_second_run_has_nothing_to_do_even_in_a_moved_project(finished_copy, tmp_path):
    shutil.move(finished_copy.folder, tmp_path / "elsewhere")
    finished_copy.folder = tmp_path / "elsewhere"
    assert "Nothing to be done" in finished_copy.snakemake()


def test_snakemake_knows_results_by_the_records_that_were_tracked(finished_copy, monkeypatch):
    """As after a pull, which fetches files and records, but nothing of what Snakemake noted.

    tests/workflow/test_sharing.py has the same with DVC.
    """
    monkeypatch.chdir(finished_copy.folder)
    monkeypatch.setattr(tracking, "run_dvc", lambda *words: None)
    tracking.track(["data/raw", "results", "reports"], Path("reports/tiny"))
    shutil.rmtree(".snakemake")
    restore_metadata()
    assert "Nothing to be done" in finished_copy.snakemake("-n")


def nothing_half_written(project):
    """No output of a training and no temporary file anywhere, but what a retry reads."""
    outputs = (project.folder / "results").rglob("finetune/**/*")
    files_at_work = [
        path
        for path in (project.folder / "work").rglob("*")
        if path.name not in ("job", "failure.txt")
    ]
    temporary = (path for path in project.folder.rglob("*") if path.name.startswith("tmp"))
    unfinished = project.folder.rglob("*.tmp")
    left = [*outputs, *files_at_work, *temporary, *unfinished]
    return not [path for path in left if path.is_file() and ".snakemake" not in path.parts]


@pytest.mark.thorough
def test_a_loss_that_is_not_finite_is_a_sentence_that_a_retry_repeats_and_leaves_nothing(project):
    run = "results/tiny/paper/finetune/tiny_cnn/red/ft/all/0/checkpoint.safetensors"
    config = ("methods=[ft]", "targets=[red]", "method_settings={ft: {lr: 1.0e+30}}")
    printed = project.snakemake(run, "--retries", "1", config=config, check=False)
    assert re.search(r"model tiny_cnn, method ft, target red: .* rate 1e\+30", printed)
    # The retry says the same without training.
    assert len(re.findall(r"^finetune .*: training diverged: .* lower lr", printed, re.M)) == 2
    (log_file,) = (project.folder / "logs").rglob("finetune/**/0.log")
    assert "computing on" not in log_file.read_text()
    assert "Traceback (most" not in printed
    assert nothing_half_written(project)


@pytest.mark.thorough
def test_a_step_of_slurm_with_fewer_processors_than_cores_is_refused_in_a_sentence(project):
    printed = project.snakemake("-n", "--cores", "4", check=False, SLURM_CPUS_ON_NODE="1")
    assert "srun --cpus-per-task=4, or with --cores 1." in printed
    project.snakemake("-n", "--cores", "4", SLURM_CPUS_ON_NODE="4")

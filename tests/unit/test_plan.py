"""Plans against sums done by hand.

The family has three datasets of two classes: `a` with 1,000 images, `b` with 2,000 that shares the
source images of `a`, and `c` with 3,000 photos that stay encoded. A tenth of `a`, 100 images, is
the pretraining proxy. The only model has 1,000 parameters, sees images at 112 pixels and passes
1,000 images/s in evaluation and 100 in training at 224 pixels, as throughput.csv states.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.grid.evaluation_groups import evaluation_groups
from rib.grid.grid import resolve_grid
from rib.grid.stored_outputs import LARGEST_STORED
from rib.records import provenance
from rib.report import plan, rates
from rib.report.run_times import RunTimes
from rib.schema.config import config_of
from rib.schema.run import Run
from tiny.projects.records import FACTS

RESULTS = Path("results/f")
HOUR = 3600
BYTES_OF_WEIGHTS = 4000  # of 1,000 parameters
IMAGES = {"a": 1000, "b": 2000, "c": 3000}
ALL_IMAGES = 6000
EPOCHS = 10
BATCH_SIZE = 8
# Images/s of the model at 112 pixels, which are four times as many as those stated at 224.
TRAINING_RATE = 4 * 100
EVALUATION_RATE = 4 * 1000
STATED_THROUGHPUT = "architecture,evaluate,train,source\nnet,1000,100,tests\n"
ARCHIVE = {
    "kind": "http",
    "urls": ["http://127.0.0.1/x"],
    "file": "x.tar",
    "size": 500,
    "digest": "md5:" + 32 * "0",
}
DATASET = {"family": "f", "source": ARCHIVE, "layout": "class_folders", "settings": None}
DATASETS = {
    "a": {**DATASET, "images": IMAGES["a"], "source_group": "g"},
    "b": {**DATASET, "images": IMAGES["b"], "source_group": "g"},
    "c": {**DATASET, "images": IMAGES["c"], "storage": "encoded"},
}
FAMILY = {
    "classes": {"file": "two.csv", "format": "wnids"},
    "reference": {"part_of": "a", "images_per_class": 50},
    "method_settings": {},
    "recipes": {},
    "defaults": {
        "models": ["net"],
        "methods": ["ft"],
        "targets": ["a"],
        "image_size": 112,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "recipes": ["paper"],
        "train_subset": ["all"],
    },
    "one_image_per_class": False,
    "classes_per_dataset": False,
}
# `quick` costs less than full fine-tuning; both merges are of `ft` and `quick`.
SOUP = {"algorithm": "soup", "form": "coefficients", "parents": ["ft", "quick"], "recipes": None}
# A user's own method that imitates the pretrained network.
OF_TAUGHT = {
    "algorithm": "taught",
    "pretrained_teacher": True,
    "stored_outputs": {"bytes_per_image": 4000},
}
METHODS = {
    "quick": {
        "algorithm": "ft",
        "recipes": {"paper": {"lr": 0.1}},
        "cost": {"training": 0.5, "storage": 0.25},
    },
    "mixed": {**SOUP, "cost": None},
    "stored": {**SOUP, "cost": {"storage": 1.5}},
    "taught": OF_TAUGHT,
    "taught_by_more": {**OF_TAUGHT, "stored_outputs": {"bytes_per_image": LARGEST_STORED}},
    "taught_by_unknown": {**OF_TAUGHT, "stored_outputs": {"bytes_per_image": "unknown"}},
}
MODEL = {
    "families": ["f"],
    "architecture": "net",
    "parameters": 1000,
    "source": {"file": "net.safetensors", "kind": "hub", "repo": "a/b", "path": "p.safetensors"},
}


@pytest.fixture
def planned(tmp_path, with_entries, monkeypatch):
    """Plans a grid of the family, with changes of some keys; gives the numbers and the text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/two.csv").write_text("wnid\nn01440764\nn02206856\n")
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/taught.py").touch()
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT)

    def plan_grid(classes=None, part=None, datasets=(), **choices):
        family = {
            **FAMILY,
            "classes": classes or FAMILY["classes"],
            "reference": part or FAMILY["reference"],
        }
        entries = {
            name: {**entry, **dict(datasets).get(name, {})} for name, entry in DATASETS.items()
        }
        catalog = with_entries(
            families={"f": family}, datasets=entries, methods=METHODS, models={"net": MODEL}
        )
        config = config_of({"family": "f", **choices}, "config.yaml")
        grid = resolve_grid(config, catalog)
        counts = plan.count_images(grid, RESULTS)
        throughput = rates.throughput(grid, RESULTS)
        passes = {
            "train": plan.training_passes(grid, counts),
            "evaluate": plan.evaluation_passes(grid, counts),
            "teacher": plan.teacher_passes(grid, counts),
        }
        kinds = ("train", "evaluate")
        hours = {kind: plan.hours(passes[kind], kind, throughput) for kind in kinds}
        return SimpleNamespace(
            images={kind: sum(part.images for part in passes[kind]) for kind in passes},
            decoded=plan.decoded_images(grid, counts),
            hours={**hours, "starts": plan.hours_of_starts(grid, counts)},
            run_times=RunTimes(grid, RESULTS),
            rates=throughput["net"],
            disk=plan.disk_space(grid, counts),
            download=plan.download(grid),
            text="\n".join(plan.lines(grid, RESULTS)),
        )

    return plan_grid


@pytest.fixture
def nothing_stated(planned, tmp_path):
    """No throughput of the model is stated."""
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT.replace("net", "other"))


def write_job(stage, seconds, manifest):
    """Write record and manifest of a job of a stage here, which took some seconds."""
    folder = RESULTS / "paper" / stage / "net/none/pretrained/all/0"
    folder.mkdir(parents=True)
    record = {**FACTS, "seconds": seconds, "cfg": {}, "log": "l", "inputs": {}, "outputs": {}}
    provenance.write(folder / "x.provenance.json", {**record, "sizes": {}})
    write_json(folder / "x.manifest.json", manifest)


# Images, hours and bytes


def images_trained_and_evaluated(plan_of_grid):
    """Passes in training and in evaluation."""
    return plan_of_grid.images["train"], plan_of_grid.images["evaluate"]


def test_images_hours_and_bytes(planned):
    # when
    whole_plan = planned()
    # then: b shares sources with a, and loses as large a part of its images to the proxy
    images_without_proxy = {"a": 900, "b": 1800, "c": 3000}
    trained_images = EPOCHS * images_without_proxy["a"]
    networks = 2  # the pretrained and the fine-tuned one
    evaluated_images = networks * sum(images_without_proxy.values())
    assert images_trained_and_evaluated(whole_plan) == (trained_images, evaluated_images)
    assert whole_plan.hours["train"] == pytest.approx(trained_images / TRAINING_RATE / HOUR)
    assert whole_plan.hours["evaluate"] == pytest.approx(evaluated_images / EVALUATION_RATE / HOUR)
    archives = 3 * 500
    assert whole_plan.download == archives + BYTES_OF_WEIGHTS
    bytes_of_arrays = (IMAGES["a"] + IMAGES["b"]) * 112 * 112 * 3
    bytes_of_photos = 500
    assert whole_plan.disk == {
        "archives": archives,
        "rows per image": 9 * evaluated_images,
        "prepared images": bytes_of_arrays + bytes_of_photos,
        "pretrained weights": 2 * BYTES_OF_WEIGHTS,
        "checkpoints, at most": BYTES_OF_WEIGHTS,
    }


def write_prepared(dataset, images, classes):
    """Write the manifest of a prepared dataset."""
    folder = RESULTS / "prepare" / dataset / "112px"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"n": images, "classes": classes})


def test_a_proxy_of_a_dataset_that_shows_only_some_classes_is_of_these(planned):
    # given a family of 1000 classes, of which the reference shows few
    thousand = {"classes": {"file": "imagenet", "format": "timm"}}
    evaluated_in_all = 2 * ALL_IMAGES
    # when it is unknown how many
    unprepared = planned(**thousand)
    # then no image is left out, and the plan says so
    assert images_trained_and_evaluated(unprepared) == (EPOCHS * 1000, evaluated_in_all)
    assert re.search("^Not known: .*reference", unprepared.text, re.MULTILINE)
    # when it is prepared and has images of four
    write_prepared("a", images=1000, classes=4)
    prepared = planned(**thousand)
    # then a fifth of its images, and of what shares them, is the reference
    images_without_proxy = {"a": 800, "b": 1600, "c": 3000}
    evaluated = 2 * sum(images_without_proxy.values())
    assert images_trained_and_evaluated(prepared) == (EPOCHS * 800, evaluated)
    assert not re.search("^Not known: .*reference", prepared.text, re.MULTILINE)


def test_classes_that_a_folder_shows_are_counted_before_it_is_prepared(planned, tmp_path):
    # given folders of three classes, with four images each
    folder = tmp_path / "photos"
    for wnid in ("n01440764", "n01443537", "n01484850"):
        (folder / wnid).mkdir(parents=True)
        for number in range(4):
            (folder / wnid / f"{number}.jpg").touch()
    source = {"kind": "folder", "path": str(folder)}
    # when
    plan_of_folder = planned(
        classes={"file": "imagenet", "format": "timm"},
        part={"part_of": "a", "images_per_class": 1},
        datasets={"a": {"source": source, "images": None}, "b": {"source_group": None}},
    )
    # then one of each class is the reference
    assert plan_of_folder.images["train"] == EPOCHS * (12 - 3)


def test_budget_sizes_seeds_and_splits_count(planned):
    # given 500 images of each dataset, two seeds, and two sizes
    choices = {
        "budget": {"max_images_per_dataset": 500},
        "seeds": [0, 1],
        "train_subset": ["all", "0.1"],
    }
    seeds = 2
    networks = 5  # the pretrained one, and of each seed one of each size
    evaluated_images = networks * 3 * 500
    # when a subset has as many steps as the whole
    plan_in_steps = planned(**choices)
    # then
    trained_images = seeds * EPOCHS * (500 + 500)
    assert images_trained_and_evaluated(plan_in_steps) == (trained_images, evaluated_images)
    # when it has as many epochs
    plan_in_epochs = planned(**choices, training={"subset_length": "epochs"})
    # then
    trained_images = seeds * EPOCHS * (500 + 50)
    assert images_trained_and_evaluated(plan_in_epochs) == (trained_images, evaluated_images)
    # when datasets are split
    plan_of_splits = planned(reference="none", protocol="held_out")
    # then 60 % train and 20 % test
    assert images_trained_and_evaluated(plan_of_splits) == (EPOCHS * 600, 2 * 1200)


def test_each_method_has_a_length_of_its_own(planned):
    # given
    choices = {"methods": ["ft"], "reference": "none"}
    evaluated_images = 2 * ALL_IMAGES
    images_of_length = [({"epochs": 3}, 3 * IMAGES["a"]), ({"steps": 5}, 5 * BATCH_SIZE)]
    for length, trained_images in images_of_length:
        # when
        plan_of_length = planned(**choices, method_settings={"ft": length})
        # then
        assert images_trained_and_evaluated(plan_of_length) == (trained_images, evaluated_images)
    # when two sizes have a number of steps
    plan_of_sizes = planned(**choices, training={"steps": 7}, train_subset=["all", "0.1"])
    # then
    sizes = 2
    assert plan_of_sizes.images["train"] == sizes * 7 * BATCH_SIZE, "whatever the number of images"


def test_hours_of_training_and_checkpoints_are_multiples_of_full_fine_tunings(planned):
    # when
    plan_of_ft = planned(methods=["ft"], reference="none")
    plan_of_quick = planned(methods=["quick"], reference="none")
    # then
    assert plan_of_quick.images == plan_of_ft.images
    assert plan_of_quick.hours["train"] == pytest.approx(plan_of_ft.hours["train"] * 0.5)
    assert plan_of_quick.hours["evaluate"] == plan_of_ft.hours["evaluate"]
    assert plan_of_quick.disk["checkpoints, at most"] == BYTES_OF_WEIGHTS * 0.25


def test_a_merge_stores_nothing_unless_its_entry_says_so(planned):
    # when
    plan_of_mixed = planned(methods=["mixed"], reference="none")
    plan_of_stored = planned(methods=["stored"], reference="none")
    # then
    shares_of_parents = 1 + 0.25
    bytes_of_mixed = shares_of_parents * BYTES_OF_WEIGHTS
    bytes_of_stored = (shares_of_parents + 1.5) * BYTES_OF_WEIGHTS
    assert plan_of_mixed.disk["checkpoints, at most"] == bytes_of_mixed
    assert plan_of_stored.disk["checkpoints, at most"] == bytes_of_stored
    assert plan_of_stored.hours["train"] == plan_of_mixed.hours["train"]


def test_a_curve_passes_each_image_through_all_its_states(planned):
    # when
    plan_of_curve = planned(methods=["wise_ft_curve"], reference="none")
    # then
    networks = 1 + 1 + 11  # the pretrained one, that of `ft`, and the states of the curve
    assert plan_of_curve.images["evaluate"] == networks * ALL_IMAGES


# Throughput


def test_what_is_not_known_is_listed_in_place_of_a_number(planned, tmp_path):
    # given
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT.replace("net", "other"))
    # when
    plan_without_rates = planned()
    # then
    text = plan_without_rates.text
    assert "9,000 images, hours unknown" in text
    assert "net: no jobs have run" in text
    assert "Jobs       6 (3 preparation, 1 training, 2 evaluation)" in text


def test_throughput_is_measured_in_jobs_that_ran_here(planned):
    # given a training, and an evaluation of two networks on 3,500 images
    datasets = {"a": {"n": 1000}, "b": {"n": 2500}}
    write_job("finetune", seconds=20.0, manifest={"images": 9000})
    write_job("evaluate", seconds=10.0, manifest={"datasets": datasets, "networks": [{}, {}]})
    # when
    plan_with_measured_rates = planned()
    # then
    rates_of_model = plan_with_measured_rates.rates
    assert rates_of_model == {
        "train": rates.Rate(450, "measured here"),
        "evaluate": rates.Rate(700, "measured here"),
    }
    assert plan_with_measured_rates.hours["train"] == pytest.approx(20 / HOUR)
    assert "net: train 450, evaluate 700 (measured here)" in plan_with_measured_rates.text


def test_weights_that_were_trained_elsewhere_say_nothing_of_throughput(planned):
    write_job("finetune", seconds=20.0, manifest={"images": 0})
    assert planned().rates["train"] == rates.Rate(TRAINING_RATE, "stated")


@pytest.mark.usefixtures("nothing_stated")
def test_a_model_that_was_only_evaluated_has_a_guess_of_its_training(planned):
    # given
    write_job("evaluate", 10.0, {"datasets": {"a": {"n": 3500}}, "networks": [{}]})
    # when
    plan_with_guess = planned()
    # then
    assert plan_with_guess.rates == {
        "evaluate": rates.Rate(350, "measured here"),
        "train": rates.Rate(100, "a guess from evaluation"),
    }
    assert "hours unknown" not in plan_with_guess.text
    assert "train a guess from evaluation" in plan_with_guess.text


@pytest.mark.usefixtures("nothing_stated")
def test_where_nothing_is_trained_the_hours_are_known(planned):
    # when
    plan_without_training = planned(methods=[])
    # then
    text = plan_without_training.text
    assert "Training   0 images, 0.0 hours" in text
    assert "Evaluation 5,700 images, hours unknown" in text


def write_gpu_rates(*rows):
    """Write what `make gpu` measured: a card, an architecture and its images/s at 224 pixels."""
    Path("reports").mkdir(exist_ok=True)
    lines = [",".join(rates.GPU_RATE_COLUMNS)]
    for card, architecture, evaluate, train in rows:
        lines.append(f"{card},{architecture},224,bf16,{evaluate},{train},2.13,2026-12-02")
    rates.GPU_RATES.write_text("\n".join(lines) + "\n")


def test_the_card_that_was_measured_last_takes_the_place_of_published_rates(planned):
    # when nothing was measured
    text = planned().text
    # then
    assert "of one RTX 3090" in text and "published" in text
    # when two cards were measured
    write_gpu_rates(("A100", "net", 2000, 600), ("H100", "net", 4000, 1200))
    plan_of_card = planned()
    # then
    assert plan_of_card.rates == {
        "train": rates.Rate(4 * 1200, "measured on H100"),
        "evaluate": rates.Rate(4 * 4000, "measured on H100"),
    }
    assert re.search("^Images/s +of one H100,", plan_of_card.text, re.MULTILINE)
    assert plan_of_card.hours["train"] == pytest.approx(EPOCHS * 900 / (4 * 1200) / HOUR)


def test_an_architecture_that_was_not_measured_has_the_published_rate(planned):
    write_gpu_rates(("H100", "other", 4000, 1200))
    assert planned().rates["train"] == rates.Rate(TRAINING_RATE, "stated")


@pytest.mark.parametrize("wrong", ["fast", "0", "-3"])
def test_a_measured_rate_that_is_none_is_refused_with_its_place(planned, wrong):
    write_gpu_rates(("H100", "net", 4000, wrong))
    with pytest.raises(UserError, match=rf"gpu_rates.csv line 2: train is '{wrong}'"):
        planned()


# Teachers, starts and limits of time


def test_a_teacher_sees_each_image_once_or_in_each_epoch_where_its_logits_are_too_many(
    planned, monkeypatch
):
    images = planned(methods=["lwf"], reference="none").images
    assert images["teacher"] == IMAGES["a"]
    assert planned(methods=["ft"], reference="none").images["teacher"] == 0
    monkeypatch.setattr(plan, "LARGEST_STORED", 4000 * IMAGES["a"] - 1)
    assert planned(methods=["lwf"], reference="none").images["teacher"] == IMAGES["a"], "on host"
    monkeypatch.setattr(plan, "LARGEST_OF_TEACHER_ON_HOST", 2000 * IMAGES["a"] - 1)
    plan_of_many = planned(methods=["lwf"], reference="none")
    assert plan_of_many.images["teacher"] == EPOCHS * IMAGES["a"]
    assert f"Teachers   {EPOCHS * IMAGES['a']:,} images" in plan_of_many.text


def test_a_users_own_teacher_counts_as_its_entry_says(planned):
    """Its outputs are stored if they are known to be few enough bytes."""
    once = planned(methods=["taught"], reference="none")
    in_each_epoch = planned(methods=["taught_by_more"], reference="none")
    of_unknown_size = planned(methods=["taught_by_unknown"], reference="none")
    assert once.images["teacher"] == IMAGES["a"]
    assert in_each_epoch.images["teacher"] == EPOCHS * IMAGES["a"]
    assert of_unknown_size.images["teacher"] == EPOCHS * IMAGES["a"]
    assert planned(methods=["ldifs"], reference="none").images["teacher"] == EPOCHS * IMAGES["a"]


def test_images_that_are_kept_encoded_are_decoded_once_an_evaluation_and_in_each_epoch(planned):
    """Of the datasets `c` alone is kept encoded."""
    images, networks = IMAGES["c"], 2  # the pretrained and the fine-tuned one
    evaluated = planned(methods=["ft"])
    assert evaluated.decoded == networks * images
    seconds = 0.88e-3 * networks * images
    assert (
        f"{networks * images:,} images, {seconds / HOUR:,.1f} hours of one core" in evaluated.text
    )
    trained = planned(methods=["ft"], targets=["c"])
    assert trained.decoded == (networks + EPOCHS) * images
    assert planned(methods=["linear_probe"], targets=["c"]).decoded == (networks + 1) * images
    # and an evaluation of several networks decodes each image once
    of_curve = planned(methods=["ft", "wise_ft_curve"], targets=["c"])
    assert of_curve.decoded == (networks + 1 + EPOCHS) * images
    assert "Decoding" not in planned(datasets={"c": {"storage": "array"}}).text


def test_each_job_starts_and_reads_the_index_of_its_datasets(planned, monkeypatch):
    hours = planned(reference="none").hours["starts"]
    jobs = 3  # a training and two evaluations
    assert hours * HOUR == pytest.approx(jobs * 10 + 2 * (IMAGES["a"] + 2 * ALL_IMAGES) / 1e6)


def test_limits_of_time_are_three_times_the_plan_within_bounds(planned):
    write_gpu_rates(("V100", "net", 0.1, 0.01))
    choices = {"reference": "none", "methods": ["ft", "lwf", "taught"]}
    run_times = planned(**choices).run_times
    (group,) = evaluation_groups(run_times.grid)
    minutes = 3 * ALL_IMAGES / (4 * 0.1) / 60
    assert run_times.of_evaluation("net", "ft", group) == pytest.approx(minutes, abs=1)
    few_steps = planned(**choices, training={"steps": 50}).run_times
    ft, lwf = (few_steps.of_training(Run("net", "a", method, "all", 0)) for method in ("ft", "lwf"))
    assert ft == 3 * 50 * BATCH_SIZE / (4 * 0.01) / 60
    assert lwf == ft + 3 * IMAGES["a"] / (4 * 0.1) / 60
    assert few_steps.of_training(Run("net", "a", "taught", "all", 0)) == lwf
    assert run_times.of_training(Run("net", "a", "ft", "all", 0)) == 2 * 24 * 60
    in_a_day = planned(**choices, compute={"max_runtime": 1440}).run_times
    assert in_a_day.of_training(Run("net", "a", "ft", "all", 0)) == 1440
    write_gpu_rates(("H100", "net", 4000, 1200))
    fast = planned(**choices).run_times
    assert fast.of_training(Run("net", "a", "ft", "all", 0)) == 30


def test_no_limit_is_known_without_rates_and_on_a_cpu(planned, tmp_path):
    run = Run("net", "a", "ft", "all", 0)
    assert planned(compute={"device": "cpu"}).run_times.of_training(run) is None
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT.replace("net", "other"))
    assert planned().run_times.of_training(run) is None


# Fisher information


def test_fisher_information_that_trainings_share_counts_once_for_each_seed(planned, with_entries):
    # given two targets and two seeds, and two variants with other weights that share it
    choices = {"methods": ["ewc"], "seeds": [0, 1], "targets": ["a", "b"]}
    seeds = 2
    images_of_proxy = 100
    few_images = {"lr": 0.1, "weight": [1.0, 10.0], "fisher_images": 30}
    more_than_the_proxy = {**few_images, "fisher_images": 2000}
    # when
    plan_of_few = planned(**choices, method_settings={"ewc": few_images})
    plan_of_all = planned(**choices, method_settings={"ewc": more_than_the_proxy})
    # then
    additional_images = plan_of_all.images["train"] - plan_of_few.images["train"]
    assert additional_images == seeds * (images_of_proxy - 30)
    bytes_of_float32 = seeds * 4 * 1000
    assert plan_of_few.disk["shared Fisher information"] == bytes_of_float32


# Lines of datasets


def test_a_datasets_line_has_the_size_of_its_archives(planned):
    assert re.search(r"^  a: 500B, \S", planned().text, re.MULTILINE)


# Optional analyses


def test_chosen_optional_analyses_are_named_as_left_out(planned):
    assert "optional" not in planned().text
    usual_plan = planned(reference="none")
    plan_with_analyses = planned(reference="none", analyses=["epochs", "distances"])
    assert plan_with_analyses.images == usual_plan.images
    assert re.search("epochs; .*distances\n", plan_with_analyses.text)
    assert "optional" in planned(analyses="all").text

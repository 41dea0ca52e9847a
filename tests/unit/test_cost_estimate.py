"""Cost estimates against sums done by hand.

The family has three datasets of two classes: `a` with 1,000 images, `b` with 2,000 that shares the
source images of `a`, and `c` with 3,000 photos that stay encoded. A tenth of `a`, 100 images, is
the pretraining proxy. The only model has 1,000 parameters, sees images at 112 pixels and passes
1,000 images/s in evaluation and 100 in training at 224 pixels, as throughput.csv states.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rib.base.files import write_json
from rib.base.settings import from_params, to_params
from rib.config.grid import resolve_grid
from rib.config.schema import validated
from rib.data.settings import DatasetView
from rib.records import provenance
from rib.report.cost_estimate import _line_of_dataset, lines, plan
from rib.training.settings import TrainingSettings
from tiny.records import FACTS

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
SOUP = {"algorithm": "soup", "form": "weights", "parents": ["ft", "quick"], "recipes": None}
METHODS = {
    "quick": {
        "algorithm": "ft",
        "recipes": {"paper": {"lr": 0.1}},
        "cost": {"training": 0.5, "storage": 0.25},
    },
    "mixed": {**SOUP, "cost": None},
    "stored": {**SOUP, "cost": {"storage": 1.5}},
}
MODEL = {
    "families": ["f"],
    "architecture": "net",
    "parameters": 1000,
    "source": {"file": "net.safetensors", "kind": "hub", "repo": "a/b", "path": "p.safetensors"},
}


@pytest.fixture
def estimate(tmp_path, with_entries, monkeypatch):
    """Plans a grid of the family; gives the plan and the grid."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/two.csv").write_text("wnid\nn01440764\nn02206856\n")
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT)
    catalog = with_entries(
        families={"f": FAMILY}, datasets=DATASETS, methods=METHODS, models={"net": MODEL}
    )

    def plan_grid(**choices):
        config = validated({"family": "f", **choices}, "config", "config.yaml")
        grid = resolve_grid(config, catalog)
        return plan(grid, Path("results/f")), grid

    return plan_grid


@pytest.fixture
def nothing_stated(estimate, tmp_path):
    """No throughput of the model is stated."""
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT.replace("net", "other"))


def record_of_job(seconds, **cfg):
    """The record of a job that took some seconds, with fields of its settings."""
    return {
        **FACTS,
        "seconds": seconds,
        "cfg": cfg,
        "log": "l",
        "inputs": {},
        "outputs": {},
        "sizes": {},
    }


def write_evaluation_of_pretrained_model():
    """Write record and manifest of an evaluation here: 3,500 images in 10 seconds."""
    folder = Path("results/f/paper/evaluate/net/none/pretrained/all/0")
    folder.mkdir(parents=True)
    provenance.write(folder / "x.provenance.json", record_of_job(10.0))
    write_json(folder / "x.manifest.json", {"datasets": {"a": {"n": 1000}, "b": {"n": 2500}}})


# Images, hours and bytes


def images_trained_and_evaluated(plan):
    """Passes in training and in evaluation of a plan that has no others."""
    images = dict(plan.images)
    trained_and_evaluated = (images.pop("train"), images.pop("evaluate"))
    assert not any(images.values())
    return trained_and_evaluated


def test_images_hours_and_bytes(estimate):
    # when
    whole_plan, _ = estimate()
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


def test_budget_sizes_seeds_and_splits_count(estimate):
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
    plan_in_steps, _ = estimate(**choices)
    # then
    trained_images = seeds * EPOCHS * (500 + 500)
    assert images_trained_and_evaluated(plan_in_steps) == (trained_images, evaluated_images)
    # when it has as many epochs
    plan_in_epochs, _ = estimate(**choices, training={"subset_length": "epochs"})
    # then
    trained_images = seeds * EPOCHS * (500 + 50)
    assert images_trained_and_evaluated(plan_in_epochs) == (trained_images, evaluated_images)
    # when datasets are split
    plan_of_splits, _ = estimate(reference="none", protocol="held_out")
    # then 60 % train and 20 % test
    assert images_trained_and_evaluated(plan_of_splits) == (EPOCHS * 600, 2 * 1200)


def test_each_method_has_a_length_of_its_own(estimate):
    # given
    choices = {"methods": ["ft"], "reference": "none"}
    evaluated_images = 2 * ALL_IMAGES
    images_of_length = [({"epochs": 3}, 3 * IMAGES["a"]), ({"steps": 5}, 5 * BATCH_SIZE)]
    for length, trained_images in images_of_length:
        # when
        plan_of_length, _ = estimate(**choices, method_settings={"ft": length})
        # then
        assert images_trained_and_evaluated(plan_of_length) == (trained_images, evaluated_images)
    # when two sizes have a number of steps
    plan_of_sizes, _ = estimate(**choices, training={"steps": 7}, train_subset=["all", "0.1"])
    # then
    sizes = 2
    assert plan_of_sizes.images["train"] == sizes * 7 * BATCH_SIZE, "whatever the number of images"


def test_hours_of_training_and_checkpoints_are_multiples_of_full_fine_tunings(estimate):
    # when
    plan_of_ft, _ = estimate(methods=["ft"], reference="none")
    plan_of_quick, _ = estimate(methods=["quick"], reference="none")
    # then
    assert plan_of_quick.images == plan_of_ft.images
    assert plan_of_quick.hours["train"] == pytest.approx(plan_of_ft.hours["train"] * 0.5)
    assert plan_of_quick.hours["evaluate"] == plan_of_ft.hours["evaluate"]
    assert plan_of_quick.disk["checkpoints, at most"] == BYTES_OF_WEIGHTS * 0.25


def test_a_merge_stores_nothing_unless_its_entry_says_so(estimate):
    # when
    plan_of_mixed, _ = estimate(methods=["mixed"], reference="none")
    plan_of_stored, _ = estimate(methods=["stored"], reference="none")
    # then
    shares_of_parents = 1 + 0.25
    bytes_of_mixed = shares_of_parents * BYTES_OF_WEIGHTS
    bytes_of_stored = (shares_of_parents + 1.5) * BYTES_OF_WEIGHTS
    assert plan_of_mixed.disk["checkpoints, at most"] == bytes_of_mixed
    assert plan_of_stored.disk["checkpoints, at most"] == bytes_of_stored
    assert plan_of_stored.hours["train"] == plan_of_mixed.hours["train"]


def test_a_curve_passes_each_image_through_all_its_states(estimate):
    # when
    plan_of_curve, _ = estimate(methods=["wise_ft_curve"], reference="none")
    # then
    networks = 1 + 1 + 11  # the pretrained one, that of `ft`, and the states of the curve
    assert plan_of_curve.images["evaluate"] == networks * ALL_IMAGES


# Throughput


def test_what_is_not_known_is_listed_in_place_of_a_number(estimate, tmp_path):
    # given
    (tmp_path / "throughput.csv").write_text(STATED_THROUGHPUT.replace("net", "other"))
    # when
    plan_without_rates, grid = estimate()
    # then
    text = "\n".join(lines(plan_without_rates, grid))
    assert "9,000 images, hours unknown" in text
    assert "net: no jobs have run" in text
    assert "Jobs       6 (3 preparation, 1 training, 2 evaluation)" in text


@pytest.mark.usefixtures("nothing_stated")
def test_runs_that_were_made_elsewhere_and_are_recorded_give_rates(estimate):
    """As in a clone of a shared project, before results are pulled."""
    # given records of a training of 20 seconds and an evaluation of 3
    _, grid = estimate(reference="none")
    view = to_params(from_params(DatasetView, grid.view_of("net", ["a"])))
    training = to_params(from_params(TrainingSettings, grid.training("ft")))
    run = "net/a/ft/all/0"
    (group,) = grid.evaluation_groups()
    record_of_training = record_of_job(20.0, view=view, training=training)
    record_of_evaluation = record_of_job(3.0, view=view)
    provenance.save(
        {
            f"results/f/paper/finetune/{run}/provenance.json": [record_of_training],
            f"results/f/paper/evaluate/{run}/{group}.provenance.json": [record_of_evaluation],
        }
    )
    # when
    plan_of_same_grid, _ = estimate(reference="none")
    # then
    rates = {"train": EPOCHS * IMAGES["a"] / 20, "evaluate": ALL_IMAGES / 3}
    assert plan_of_same_grid.rates["net"][:2] == (rates, "as recorded")
    assert plan_of_same_grid.hours["train"] == pytest.approx(20 / HOUR)
    # when the record is of another training
    plan_of_shorter_training, _ = estimate(reference="none", training={"epochs": 1})
    # then
    origin = plan_of_shorter_training.rates["net"][1]
    assert origin == "evaluate as recorded, train a guess from evaluation"


@pytest.mark.usefixtures("nothing_stated")
def test_a_model_that_was_only_evaluated_has_a_guess_of_its_training(estimate):
    # given
    write_evaluation_of_pretrained_model()
    # when
    plan_with_guess, grid = estimate()
    # then
    assert plan_with_guess.rates["net"][0] == {"evaluate": 350, "train": 100}
    text = "\n".join(lines(plan_with_guess, grid))
    assert "hours unknown" not in text
    assert "train a guess from evaluation" in text


@pytest.mark.usefixtures("nothing_stated")
def test_where_nothing_is_trained_the_hours_are_known(estimate):
    # when
    plan_without_training, grid = estimate(methods=[])
    # then
    text = "\n".join(lines(plan_without_training, grid))
    assert "Training   0 images, 0.0 hours" in text
    assert "Evaluation 5,700 images, hours unknown" in text


# Fisher information


def test_fisher_information_that_trainings_share_counts_once_for_each_seed(estimate, with_entries):
    # given two targets and two seeds, and two variants with other weights that share it
    choices = {"methods": ["ewc"], "seeds": [0, 1], "targets": ["a", "b"]}
    seeds = 2
    images_of_proxy = 100
    few_images = {"lr": 0.1, "weight": [1.0, 10.0], "fisher_images": 30}
    more_than_the_proxy = {**few_images, "fisher_images": 2000}
    # when
    plan_of_few, _ = estimate(**choices, method_settings={"ewc": few_images})
    plan_of_all, _ = estimate(**choices, method_settings={"ewc": more_than_the_proxy})
    # then
    additional_images = plan_of_all.images["train"] - plan_of_few.images["train"]
    assert additional_images == seeds * (images_of_proxy - 30)
    bytes_of_float32 = seeds * 4 * 1000
    assert plan_of_few.disk["shared Fisher information"] == bytes_of_float32


# Lines of datasets


@pytest.mark.parametrize(
    ("facts", "has_been_fetched", "line"),
    [
        ({}, True, "  photos: 1.00kB, theirs"),
        ({}, False, "  photos: 1.00kB, theirs, not yet fetched by us"),
        ({"sources": [{"size": 500}, {}]}, True, "  photos: at least 500B, theirs"),
        ({"sources": [{}]}, True, "  photos: theirs"),
        (
            {"licences_on_hub": ("mit",), "gated_repositories": ("owner/set",)},
            True,
            "  photos: 1.00kB, theirs, on the hub: mit, gated",
        ),
    ],
)
def test_a_datasets_size_terms_and_state_are_a_line(facts, has_been_fetched, line):
    # given
    usual_facts = {
        "name": "photos",
        "sources": [{"size": 500}, {"size": 500}],
        "licence": "theirs",
        "licences_on_hub": (),
        "gated_repositories": (),
    }
    dataset = SimpleNamespace(**{**usual_facts, **facts})
    # then
    assert _line_of_dataset(dataset, has_been_fetched) == line


# Optional analyses


def test_a_plan_without_optional_analyses_has_no_lines_of_them(estimate):
    usual_plan, grid = estimate()
    text = "\n".join(lines(usual_plan, grid))
    assert "napshots" not in text
    assert "eatures" not in text


def test_trainings_that_keep_snapshots_take_as_long_as_those_of_their_runs(estimate):
    # given a grid of two trainings, on `a` and on the photos of `c`
    choices = {
        "targets": ["a", "c"],
        "reference": "none",
        "representations": {"targets": "all"},
    }
    usual_plan, _ = estimate(**choices)
    # when both also keep snapshots
    plan_with_snapshots, grid = estimate(**choices, analyses=["epochs"])
    # then
    assert plan_with_snapshots.jobs["snapshots"] == 2
    assert plan_with_snapshots.images["train"] == usual_plan.images["train"]
    assert plan_with_snapshots.images["snapshots"] == 10 * (1000 + 3000)
    assert plan_with_snapshots.hours["snapshots"] == usual_plan.hours["train"] > 0
    text = "\n".join(lines(plan_with_snapshots, grid))
    assert "Snapshots  40,000 images, 0.0 hours of one device" in text


def test_the_snapshots_of_one_run_are_counted_with_its_own_target(estimate):
    choices = {"targets": ["a", "c"], "reference": "none", "analyses": ["epochs"]}
    of_a, _ = estimate(**choices, representations={"targets": ["a"]})
    assert of_a.images["snapshots"] == 10 * 1000


def test_features_are_of_at_most_as_many_images_as_config_says(estimate):
    # when features of the pretrained and of one fine-tuned network are computed
    usual_plan, _ = estimate(reference="none")
    plan_with_features, grid = estimate(
        reference="none", analyses=["representations"], representations={"images": 2500}
    )
    # then
    networks = 2
    images_of_arrays = networks * (IMAGES["a"] + IMAGES["b"])
    photos = networks * 2500
    assert plan_with_features.jobs["features"] == networks * 3
    assert plan_with_features.images == {
        **usual_plan.images,
        "features": images_of_arrays + photos,
    }
    hours = (images_of_arrays + photos) / EVALUATION_RATE / HOUR
    assert plan_with_features.hours["features"] == pytest.approx(hours)
    text = "\n".join(lines(plan_with_features, grid))
    assert "Features   11,000 images, 0.0 hours of one device" in text


def test_features_of_snapshots_are_of_all_their_networks(estimate):
    plan_of_epochs, _ = estimate(
        reference="none", analyses=["epochs"], representations={"images": 500}
    )
    networks = 1 + 10  # the pretrained one, and the snapshots
    assert plan_of_epochs.images["features"] == networks * 3 * 500
    assert plan_of_epochs.jobs["features"] == 2 * 3


def test_distances_need_features_of_the_pretrained_models_alone(estimate):
    plan_of_distances, _ = estimate(analyses=["distances"], representations={"images": 500})
    assert plan_of_distances.jobs["features"] == 3
    assert plan_of_distances.images["features"] == 3 * 500


def test_features_are_of_the_test_split_within_the_budget(estimate):
    split_plan, grid = estimate(
        reference="none",
        protocol="held_out",
        analyses=["distances"],
        budget={"max_images_per_dataset": {"a": 100, "b": 500, "c": 1000}},
    )
    test_share = 1 - sum(grid.split_fractions.values())
    assert split_plan.images["features"] == round(test_share * 1600)


@pytest.mark.usefixtures("nothing_stated")
def test_snapshots_and_features_without_a_rate_are_said_to_be_unknown(estimate):
    text = "\n".join(lines(*estimate(analyses=["epochs"])))
    assert "Snapshots  9,000 images, hours unknown" in text

"""Cost estimates against sums done by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rib.base.files import write_json
from rib.base.settings import from_params, to_params
from rib.config.grid import resolve_grid
from rib.config.schema import validated
from rib.data.settings import DatasetView
from rib.records import provenance
from rib.reporting.cost_estimate import _line_of_dataset, lines, plan
from rib.reporting.settings import FeatureJob, FullRun
from rib.reporting.stages import Machine
from rib.training.settings import TrainingSettings
from tiny.changed import replace
from tiny.records import FACTS

MACHINE = Machine(
    cores=8,
    gpus=1,
    jobs_per_gpu=1,
    threads_per_job=1,
    decode_workers=7,
    forks_networks=False,
    forks_others=True,
)
STATED = "architecture,evaluate,train,source\nnet,1000,100,tests\n"
FULL_RUN = FullRun(
    jobs={"finetune": 3, "evaluate_run": 2, "prepare": 4, "publish_grid": 1},
    snapshots=[],
    features=[],
)
TRAINED = {"recipes": {"paper": {"lr": 0.1}}}
SOURCE = {
    "kind": "http",
    "urls": ["http://127.0.0.1/x"],
    "file": "x.tar",
    "size": 500,
    "digest": "md5:" + 32 * "0",
}


@pytest.fixture
def estimate(tmp_path, with_entries, monkeypatch):
    """Plans a grid of one model on a family of three sets of two classes.

    The sets have 1000, 2000 and 3000 images.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes/two.csv").write_text("wnid\nn01440764\nn02206856\n")
    (tmp_path / "throughput.csv").write_text(STATED)
    grid = {
        "models": ["net"],
        "methods": ["ft"],
        "targets": ["a"],
        "image_size": 112,
        "epochs": 10,
        "batch_size": 8,
    }
    grid |= {"recipes": ["paper"], "train_subset": ["all"]}
    family = {
        "classes": {"file": "two.csv", "format": "wnids"},
        "reference": {"part_of": "a", "images_per_class": 50},
        "method_settings": {},
        "recipes": {},
        "defaults": grid,
        "one_image_per_class": False,
        "classes_per_dataset": False,
    }
    entry = {"family": "f", "source": SOURCE, "layout": "class_folders", "settings": None}
    network = {"file": "net.safetensors", "kind": "hub", "repo": "a/b", "path": "p.safetensors"}
    catalog = with_entries(
        families={"f": family},
        datasets={
            "a": {**entry, "images": 1000, "source_group": "g"},
            "b": {**entry, "images": 2000, "source_group": "g"},
            "c": {**entry, "images": 3000, "storage": "encoded"},
        },
        methods={
            "quick": {**TRAINED, "algorithm": "ft", "cost": {"training": 0.5, "storage": 0.25}},
            "mixed": {
                "algorithm": "soup",
                "parents": ["ft", "quick"],
                "recipes": None,
                "cost": None,
            },
            "stored": {
                "algorithm": "soup",
                "parents": ["ft", "quick"],
                "recipes": None,
                "cost": {"storage": 1.5},
            },
        },
        models={
            "net": {"families": ["f"], "architecture": "net", "parameters": 1000, "source": network}
        },
    )

    def make(full_run=FULL_RUN, **choices):
        chosen = resolve_grid(
            validated({"family": "f", **choices}, "config", "config.yaml"), catalog
        )
        return plan(chosen, Path("results/f"), full_run, MACHINE), chosen

    return make


def test_images_hours_and_bytes(estimate):
    found, _ = estimate()
    # 100 of a's 1000 stand for pretraining; b shares its sources and loses as large a part
    assert found.images == {"train": 10 * 900, "evaluate": 2 * (900 + 1800 + 3000)}
    # at 112 px four times as fast as stated
    assert found.hours["train"] == pytest.approx(9000 / 400 / 3600)
    assert found.hours["evaluate"] == pytest.approx(11400 / 4000 / 3600)
    assert found.download == 3 * 500 + 4000
    assert found.disk == {
        "archives": 1500,
        "rows per image": 9 * 11400,
        "prepared images": (1000 + 2000) * 112 * 112 * 3 + 500,
        "pretrained weights": 8000,
        "checkpoints, at most": 4000,
    }


def test_budget_sizes_seeds_and_splits_count(estimate):
    choices = {
        "budget": {"max_images_per_dataset": 500},
        "seeds": [0, 1],
        "train_subset": ["all", "0.1"],
    }
    found, _ = estimate(**choices)
    assert found.images == {"train": 2 * 10 * (500 + 500), "evaluate": 5 * 1500}, (
        "a subset has as many steps"
    )
    found, _ = estimate(**choices, training={"subset_length": "epochs"})
    assert found.images == {"train": 2 * 10 * (500 + 50), "evaluate": 5 * 1500}
    found, _ = estimate(reference="none", protocol="held_out")
    assert found.images == {"train": 10 * 600, "evaluate": 2 * 1200}


def test_each_method_has_a_length_of_its_own(estimate):
    passes = {"methods": ["ft"], "reference": "none"}
    evaluated = 2 * 6000
    for own, images in (({"epochs": 3}, 3 * 1000), ({"steps": 5}, 5 * 8)):
        found, _ = estimate(**passes, method_settings={"ft": own})
        assert found.images == {"train": images, "evaluate": evaluated}
    found, _ = estimate(**passes, training={"steps": 7}, train_subset=["all", "0.1"])
    assert found.images["train"] == 2 * 7 * 8, "whatever the number of images"


def test_hours_of_training_and_checkpoints_are_multiples_of_full_fine_tunings(estimate):
    base, _ = estimate(methods=["ft"], reference="none")
    found, _ = estimate(methods=["quick"], reference="none")
    assert found.images == base.images
    assert found.hours["train"] == pytest.approx(base.hours["train"] * 0.5)
    assert found.hours["evaluate"] == base.hours["evaluate"]
    assert found.disk["checkpoints, at most"] == 4000 * 0.25


def test_a_merge_stores_nothing_unless_its_entry_says_so(estimate):
    soup, _ = estimate(methods=["mixed"], reference="none")
    merged, _ = estimate(methods=["stored"], reference="none")
    assert soup.disk["checkpoints, at most"] == (1 + 0.25) * 4000  # of its two parents
    assert merged.disk["checkpoints, at most"] == (1 + 0.25 + 1.5) * 4000
    assert merged.hours["train"] == soup.hours["train"]


def test_a_curve_passes_each_image_through_all_its_states(estimate):
    found, _ = estimate(methods=["wise_ft_curve"], reference="none")
    assert found.images["evaluate"] == (1 + 1 + 11) * 6000


def test_what_is_not_known_is_listed_in_place_of_a_number(estimate, tmp_path):
    (tmp_path / "throughput.csv").write_text(STATED.replace("net", "other"))
    text = "\n".join(lines(*estimate(), MACHINE))
    assert (
        "9,000 images, hours unknown" in text
        and "net: no jobs have run" in text
        and "3 finetune" in text
    )


def record(seconds, **cfg):
    return {
        **FACTS,
        "seconds": seconds,
        "cfg": cfg,
        "log": "l",
        "inputs": {},
        "outputs": {},
        "sizes": {},
    }


@pytest.fixture
def nothing_stated(estimate, tmp_path):
    (tmp_path / "throughput.csv").write_text(STATED.replace("net", "other"))


@pytest.mark.usefixtures("nothing_stated")
def test_runs_that_were_made_elsewhere_and_are_recorded_give_rates(estimate):
    """As in a clone of a shared project, before results are pulled."""
    _, chosen = estimate(reference="none")
    run, view, (group,) = "net/a/ft/all/0", chosen.view_of("net", ["a"]), chosen.evaluation_groups()
    view = to_params(from_params(DatasetView, view))
    training = to_params(from_params(TrainingSettings, chosen.training("ft")))
    trained = record(20.0, view=view, training=training)
    evaluated = record(3.0, view=view)
    provenance.save(
        {
            f"results/f/paper/finetune/{run}/provenance.json": [trained],
            f"results/f/paper/evaluate/{run}/{group}.provenance.json": [evaluated],
        }
    )
    found, _ = estimate(reference="none")
    assert found.rates["net"][:2] == (
        {"train": 10 * 1000 / 20, "evaluate": 6000 / 3},
        "as recorded",
    )
    assert found.hours["train"] == pytest.approx(20 / 3600)
    found, _ = estimate(reference="none", training={"epochs": 1})
    assert found.rates["net"][1] == "evaluate as recorded, train a guess from evaluation", (
        "of another training"
    )


@pytest.mark.usefixtures("nothing_stated")
def test_a_model_that_was_only_evaluated_has_a_guess_of_its_training(estimate):
    run = Path("results/f/paper/evaluate/net/none/pretrained/all/0")
    run.mkdir(parents=True)
    provenance.write(run / "x.provenance.json", record(10.0))
    write_json(run / "x.manifest.json", {"datasets": {"a": {"n": 1000}, "b": {"n": 2500}}})
    found, chosen = estimate()
    assert found.rates["net"][0] == {"evaluate": 350, "train": 100}
    text = "\n".join(lines(found, chosen, MACHINE))
    assert "hours unknown" not in text and "train a guess from evaluation" in text


@pytest.mark.usefixtures("nothing_stated")
def test_where_nothing_is_trained_the_hours_are_known(estimate):
    text = "\n".join(lines(*estimate(methods=[]), MACHINE))
    assert (
        "Training   0 images, 0.0 hours" in text
        and "Evaluation 5,700 images, hours unknown" in text
    )


def test_fisher_information_that_trainings_share_counts_once_for_each_seed(estimate, with_entries):
    # 100 of a's images are the proxy; two seeds, and two variants with other weights that share it
    choices = {"methods": ["ewc"], "seeds": [0, 1], "targets": ["a", "b"]}
    variants = {"ewc": {"lr": 0.1, "weight": [1.0, 10.0], "fisher_images": 30}}
    few, _ = estimate(**choices, method_settings=variants)
    most, _ = estimate(
        **choices, method_settings={"ewc": {**variants["ewc"], "fisher_images": 2000}}
    )
    assert most.images["train"] - few.images["train"] == 2 * (100 - 30)
    assert few.disk["shared Fisher information"] == 2 * 4 * 1000  # of float32 parameters


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
    dataset = {
        "name": "photos",
        "sources": [{"size": 500}, {"size": 500}],
        "licence": "theirs",
        "licences_on_hub": (),
        "gated_repositories": (),
        **facts,
    }
    assert _line_of_dataset(SimpleNamespace(**dataset), has_been_fetched) == line


def test_photos_that_stay_encoded_are_decoded_at_each_pass(estimate):
    """c is stored encoded: 3,000 photos, of which the archive has 500 bytes."""
    found, _ = estimate(targets=["c"], methods=["ft"], reference="none")
    works = found.stages.work
    seconds_of_photo = 0.0005 + 3e-8 * 500 / 3000
    assert works["preparation"].photos == 1000 + 2000 + 3000
    assert works["training"].photos == 10 * 3000
    assert works["training"].decoding == pytest.approx(30_000 * seconds_of_photo / 3600)
    assert works["training"].of_arrays == 0 and works["training"].of_photos > 0
    assert works["evaluation"].photos == 2 * 3000
    assert works["evaluation"].of_arrays == pytest.approx(works["evaluation"].of_photos), (
        "a and b have 3,000 images together"
    )
    assert works["training"].of_photos == found.hours["train"]


def test_a_method_that_keeps_features_decodes_each_photo_once(estimate):
    found, _ = estimate(targets=["c"], methods=["linear_probe"], reference="none")
    assert found.images["train"] > 3000
    assert found.stages.work["training"].photos == 3000


def test_each_epoch_ends_once_however_small_the_part_that_is_trained_on(estimate):
    """10 epochs of 125 steps on all 1000 images; on 80, as many steps are 125 epochs of ten."""
    found, _ = estimate(methods=["ft"], reference="none", train_subset=["all", 80])
    work = found.stages.work["training"]
    assert work.epochs == 10 + 125
    seconds_of_epoch = 0.0015 + 4000 * 4.6e-12  # on a GPU
    assert work.epoch_ends == pytest.approx(135 * seconds_of_epoch / 3600)


def test_jobs_with_networks_take_longer_to_start_than_others(estimate):
    works = estimate()[0].stages.work
    with_network = 4.5 + 4000 * 2.2e-9
    assert works["training"].starts == pytest.approx(3 * with_network / 3600)
    assert works["evaluation"].starts == pytest.approx(2 * with_network / 3600)
    assert works["preparation"].starts == pytest.approx(4 * 0.2 / 3600)
    assert works["other jobs"].starts == pytest.approx(0.2 / 3600)


@pytest.mark.usefixtures("nothing_stated")
def test_rates_that_were_measured_of_whole_jobs_have_starts_and_decoding_in_them(estimate):
    run = Path("results/f/paper/evaluate/net/none/pretrained/all/0")
    run.mkdir(parents=True)
    provenance.write(run / "x.provenance.json", record(10.0))
    write_json(run / "x.manifest.json", {"datasets": {"a": {"n": 1000}, "b": {"n": 2500}}})
    works = estimate(targets=["c"])[0].stages.work
    for stage in ("training", "evaluation"):
        assert works[stage].of_photos > 0
        assert works[stage].starts == works[stage].decoding == works[stage].epoch_ends == 0


# Optional analyses


PRETRAINED_RUN = "net/none/pretrained/all/0"


def with_jobs(snapshots=(), features=()):
    """A full run with other jobs besides the usual ones.

    Args:
        snapshots: runs that are trained once more.
        features: jobs that compute features.
    """
    return replace(FULL_RUN, snapshots=[*snapshots], features=[*features])


def features_of(dataset, networks=1):
    """A job that computes features on a dataset."""
    return FeatureJob(run=PRETRAINED_RUN, dataset=dataset, networks=networks)


def test_a_plan_without_optional_analyses_has_no_lines_of_them(estimate):
    usual_plan, grid = estimate()
    text = "\n".join(lines(usual_plan, grid, MACHINE))
    assert "napshots" not in text
    assert "eatures" not in text


def test_trainings_that_keep_snapshots_take_as_long_as_those_of_their_runs(estimate):
    # given a grid of two trainings, on `a` and on the photos of `c`, which also keep snapshots
    choices = {"targets": ["a", "c"], "reference": "none"}
    trained_runs = ["net/a/ft/all/0", "net/c/ft/all/0"]
    usual_plan, _ = estimate(**choices)
    # when
    plan_with_snapshots, grid = estimate(with_jobs(snapshots=trained_runs), **choices)
    # then
    assert plan_with_snapshots.images == {**usual_plan.images, "snapshots": 10 * (1000 + 3000)}
    assert plan_with_snapshots.hours["snapshots"] == usual_plan.hours["train"] > 0
    works = plan_with_snapshots.stages.work
    assert works["snapshots"] == replace(works["training"], starts=0.0)
    assert works["training"] == usual_plan.stages.work["training"]
    text = "\n".join(lines(plan_with_snapshots, grid, MACHINE))
    assert "Snapshots  40,000 images, 0.0 hours of one device" in text
    assert "  snapshots: " in text


def test_the_snapshots_of_one_run_are_counted_with_its_own_target(estimate):
    choices = {"targets": ["a", "c"], "reference": "none"}
    of_a, _ = estimate(with_jobs(snapshots=["net/a/ft/all/0"]), **choices)
    assert of_a.images["snapshots"] == 10 * 1000
    assert of_a.stages.work["snapshots"].photos == 0


def test_features_are_of_at_most_as_many_images_as_config_says(estimate):
    # given features of `b`, and those of all ten snapshots of a run on `c`, which has photos
    jobs = [features_of("b"), features_of("c", networks=10)]
    choices = {"reference": "none", "representations": {"images": 2500}}
    usual_plan, _ = estimate(**choices)
    # when
    plan_with_features, grid = estimate(with_jobs(features=jobs), **choices)
    # then
    images = {"b": 2000, "c": 10 * 2500}
    assert plan_with_features.images == {**usual_plan.images, "features": 2000 + 10 * 2500}
    rate_at_112_pixels = 4 * 1000
    work = plan_with_features.stages.work["features"]
    assert work.of_arrays == pytest.approx(images["b"] / rate_at_112_pixels / 3600)
    assert work.of_photos == pytest.approx(images["c"] / rate_at_112_pixels / 3600)
    assert plan_with_features.hours["features"] == pytest.approx(work.of_arrays + work.of_photos)
    assert work.photos == images["c"]
    text = "\n".join(lines(plan_with_features, grid, MACHINE))
    assert "Features   27,000 images, 0.0 hours of one device" in text
    assert "  features: " in text


def test_features_are_of_the_test_split_within_the_budget(estimate):
    choices = {"reference": "none", "protocol": "held_out"}
    budget = {"max_images_per_dataset": {"b": 500}}
    split_plan, grid = estimate(with_jobs(features=[features_of("b")]), **choices, budget=budget)
    test_share = 1 - sum(grid.split_fractions.values())
    assert split_plan.images["features"] == round(test_share * 500)


@pytest.mark.usefixtures("nothing_stated")
def test_snapshots_and_features_without_a_rate_are_said_to_be_unknown(estimate):
    full_run = with_jobs(snapshots=["net/a/ft/all/0"], features=[features_of("b")])
    text = "\n".join(lines(*estimate(full_run), MACHINE))
    assert "Snapshots  9,000 images, hours unknown" in text
    assert "  snapshots: not known" in text
    assert "  features: not known" in text


def test_jobs_of_optional_analyses_start_with_a_network(estimate):
    jobs = {"keep_snapshots": 2, "compute_features": 3, "compute_epoch_features": 1}
    works = estimate(replace(FULL_RUN, jobs=jobs))[0].stages.work
    with_network = 4.5 + 4000 * 2.2e-9
    assert works["snapshots"].starts == pytest.approx(2 * with_network / 3600)
    assert works["features"].starts == pytest.approx(4 * with_network / 3600)
    assert works["other jobs"].starts == 0

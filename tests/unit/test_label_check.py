"""When the labels of a dataset are believed: decisions on made-up predictions of a network."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from rib.analyses.data_and_models.tables import label_table
from rib.base.errors import UserError
from rib.base.files import write_json
from rib.catalog.label_space import LabelSpace
from rib.data.identity import PHOTO
from rib.statistics.label_check import (
    AGREES,
    NO_CLASS,
    NOT_DECIDED,
    OTHER_LABELS,
    OVERRIDDEN,
    check_labels,
    compare_mappings,
    decide,
    mappings_of,
)

CLASSES = 20
NAMES = tuple(f"{(7 * label) % CLASSES:02d} name" for label in range(CLASSES))
SPACE = LabelSpace(
    keys=tuple(f"n{(13 * label) % CLASSES:02d}" for label in range(CLASSES)),
    indices=tuple((label,) for label in range(CLASSES)),
    names=NAMES,
)
IMAGES_PER_CLASS = 10
TRUTH = np.repeat(np.arange(CLASSES), IMAGES_PER_CLASS)
SHOWN = TRUTH[TRUTH > 0]  # classes of images whose labels may be one too low
USUAL = 0.8  # the network's median accuracy


def predictions(accuracy, truth=TRUTH, seed=0):
    """Classes that a network predicts: the true one with a probability, or another at random."""
    rng = np.random.default_rng(seed)
    is_right = rng.random(len(truth)) < accuracy
    wrong = (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
    return np.where(is_right, truth, wrong)


def decision(labels, predicted, space=SPACE, median_accuracy=USUAL, labels_checked=False):
    comparison = compare_mappings(labels, predicted, space, median_accuracy)
    return decide(comparison, labels_checked)


def stated_labels(mapping):
    """Images whose truth a mapping gives for some stated label: their truths and these labels."""
    label_of_class = {truth: label for label, truth in enumerate(mapping.classes)}
    has_label = np.isin(TRUTH, mapping.classes)
    truth = TRUTH[has_label]
    return truth, np.array([label_of_class[label] for label in truth])


@pytest.mark.parametrize("name", mappings_of(SPACE))
def test_labels_of_every_other_mapping_stop_a_run_and_are_named(name):
    truth, labels = stated_labels(mappings_of(SPACE)[name])
    decided = decision(labels, predictions(0.7, truth))
    assert (decided.verdict, decided.better_mapping) == (OTHER_LABELS, name)


def test_right_labels_agree():
    assert decision(TRUTH, predictions(0.7)).verdict == AGREES
    assert decision(TRUTH, predictions(0.7), labels_checked=True).verdict == AGREES


@pytest.mark.parametrize("accuracy", [0, 1 / CLASSES, 0.1])
def test_a_dataset_on_which_the_network_fails_stops_nothing(accuracy):
    for seed in range(20):
        assert decision(TRUTH, predictions(accuracy, seed=seed)).better_mapping is None


def test_a_network_that_fails_although_it_prefers_the_next_class_stops_nothing():
    """As on photos that were chosen since networks take them for the neighbouring class."""
    predicted = predictions(0.02)
    predicted[::4] = (TRUTH[::4] + 1) % CLASSES  # of a quarter, which is less than half of USUAL
    comparison = compare_mappings(TRUTH, predicted, SPACE, USUAL)
    next_class = comparison.of_mappings["one_too_low"]
    assert next_class.p_holm < 1e-3 and next_class.accuracy > comparison.stated_accuracy
    assert decide(comparison, False).verdict == NOT_DECIDED
    # but it would stop a run of a network that is no better elsewhere
    of_weak_network = compare_mappings(TRUTH, predicted, SPACE, 0.3)
    assert decide(of_weak_network, False).verdict == OTHER_LABELS


def test_a_network_that_says_the_same_of_all_images_stops_nothing():
    """Three quarters of the images would be right by a shift, but by chance."""
    space = LabelSpace(keys=("healthy", "ill"), indices=((0,), (1,)), names=("healthy", "ill"))
    labels = np.repeat([0, 1], [75, 25])
    predicted = np.ones(100, int)
    comparison = compare_mappings(labels, predicted, space, median_accuracy=0.5)
    shifted = comparison.of_mappings["one_too_low"]
    assert shifted.accuracy == 0.75
    assert shifted.p_holm < 1e-3
    assert shifted.beyond_chance == 0
    assert decide(comparison, labels_checked=False).verdict == NOT_DECIDED


def test_agreement_beyond_chance_is_cohens_kappa():
    """The example of two raters of 50 proposals: 35 agreed upon, 20 and 15 of them Yes and No.

    Its kappa is 0.4 (https://en.wikipedia.org/wiki/Cohen%27s_kappa, Simple example).
    """
    space = LabelSpace(
        keys=("none", "yes", "no"), indices=((0,), (1,), (2,)), names=("none", "yes", "no")
    )
    first_rater = np.repeat([1, 1, 2, 2], [20, 5, 10, 15])
    second_rater = np.repeat([1, 2, 1, 2], [20, 5, 10, 15])
    comparison = compare_mappings(first_rater - 1, second_rater, space, median_accuracy=1)
    shifted = comparison.of_mappings["one_too_low"]
    assert shifted.accuracy == 0.7
    assert shifted.beyond_chance == pytest.approx(0.4)


def test_neighbours_that_look_alike_are_not_decided():
    """The network takes every second class for the one after it as often as it is right."""
    rng = np.random.default_rng(0)
    takes_next = rng.random(len(TRUTH)) < 0.5
    predicted = np.where(takes_next, (TRUTH + 1) % CLASSES, TRUTH)
    decided = decision(TRUTH, predicted)
    assert (decided.verdict, decided.better_mapping) == (NOT_DECIDED, None)


def test_one_image_per_class_is_enough_where_the_network_is_good():
    truth = np.arange(CLASSES)
    assert decision(truth, truth).verdict == AGREES
    assert decision(truth[:-1], truth[1:]).verdict == OTHER_LABELS
    # and five images are not
    assert decision(truth[:5], truth[1:6]).verdict == NOT_DECIDED


def test_somebody_who_has_looked_at_the_labels_overrides_the_network():
    decided = decision(TRUTH[TRUTH > 0] - 1, TRUTH[TRUTH > 0], labels_checked=True)
    assert (decided.verdict, decided.better_mapping) == (OVERRIDDEN, "one_too_low")


def test_mappings_are_different_from_each_other_and_from_the_stated_one():
    mappings = {name: tuple(mapping.classes) for name, mapping in mappings_of(SPACE).items()}
    assert len(set(mappings.values()) | {tuple(range(CLASSES))}) == len(mappings) + 1
    for name in ("name", "key", "text"):
        assert {f"labels_by_{name}", f"outputs_by_{name}"} <= mappings.keys()
    assert not any("wnid" in name for name in mappings), "the outputs have this order"


def test_sorted_labels_number_the_classes_in_that_order():
    by_name = mappings_of(SPACE)["labels_by_name"].classes
    assert [NAMES[label] for label in by_name] == sorted(NAMES)
    by_text = mappings_of(SPACE)["labels_by_text"].classes
    assert list(by_text[:4]) == [0, 1, 10, 11], "as ImageFolder numbers folders 0 to 19"
    later = mappings_of(SPACE)["one_too_low"].classes
    assert later[0] == 1 and later[-1] == NO_CLASS


def test_a_space_of_one_class_has_nothing_to_compare():
    space = LabelSpace(keys=("a",), indices=((0,),), names=("a",))
    labels = np.zeros(9, int)
    # a shift leaves no class, and is never right
    comparison = compare_mappings(labels, labels, space, 1.0)
    assert all(of_mapping.accuracy == 0 for of_mapping in comparison.of_mappings.values())


def test_further_right_answers_count_in_every_mapping():
    also = tuple((label + 2,) if label + 2 < CLASSES else () for label in range(CLASSES))
    space = LabelSpace(SPACE.keys, SPACE.indices, NAMES, also=also)
    predicted = np.minimum(TRUTH + 2, CLASSES - 1)
    comparison = compare_mappings(TRUTH, predicted, space, USUAL)
    assert comparison.stated_accuracy == pytest.approx(19 / 20)
    assert comparison.of_mappings["one_too_high"].accuracy == pytest.approx(1 / 20)


def test_p_is_that_of_a_sign_test_of_the_images_on_which_one_is_right():
    # given: the network takes 3 images for the class after theirs, and is right on 12
    labels = np.array([4] * 15 + [9] * 5)
    predicted = np.array([4] * 12 + [5] * 3 + [0] * 5)
    # then
    comparison = compare_mappings(labels, predicted, SPACE, USUAL)
    assert comparison.of_mappings["one_too_low"].p == pytest.approx(2 * binom.cdf(3, 15, 0.5))
    assert all(test.p <= test.p_holm for test in comparison.of_mappings.values())


@pytest.fixture
def datasets(tmp_path):
    """Writes `photos` and two prepared datasets of which a network knows 80%; gives its answers."""

    def write(labels, predicted, objects=None, digests=None):
        often_right = TRUTH.copy()
        often_right[::5] = (TRUTH[::5] + 1) % CLASSES
        return {
            "photos": write_dataset(tmp_path / "photos", labels, predicted, objects, digests),
            "cartoons": write_dataset(tmp_path / "cartoons", TRUTH, often_right),
            "sketches": write_dataset(tmp_path / "sketches", TRUTH, often_right),
        }

    return write


def write_dataset(folder, labels, predicted, objects=None, digests=None):
    """Write a prepared dataset of images; gives a network's predictions on them."""
    places = range(len(labels))
    if objects is None:
        objects = [f"{folder.name}/{place}" for place in places]
    if digests is None:
        digests = [f"image {place}" for place in places]
    folder.mkdir(exist_ok=True)
    index = {"label": labels.astype(np.int16), "object_id": objects, PHOTO: digests}
    pd.DataFrame(index).to_parquet(folder / "index.parquet")
    write_json(folder / "classes.json", SPACE.to_json())
    rank = (predicted != labels).astype(int)
    return pd.DataFrame({"row": places, "prediction": predicted, "rank": rank})


def check(predictions, folder, labels_checked=()):
    """Check prepared datasets of a folder; gives the content of the file with the verdicts."""
    check_labels(
        model="net",
        predictions=predictions,
        folders={name: folder / name for name in predictions},
        labels_checked=labels_checked,
        verdicts=folder / "verdicts.json",
    )
    return json.loads((folder / "verdicts.json").read_text())


def test_the_record_says_what_was_compared(datasets, tmp_path):
    record = check(datasets(TRUTH, predictions(0.7)), tmp_path)
    assert record["model"] == "net"
    assert record["median_accuracy"] == pytest.approx(80), "that of cartoons and sketches"
    assert record["datasets"].keys() == {"photos", "cartoons", "sketches"}
    photos = record["datasets"]["photos"]
    assert (photos["verdict"], photos["better_mapping"], photos["images"]) == (AGREES, None, 200)
    assert photos["accuracy"] == pytest.approx(100 * (predictions(0.7) == TRUTH).mean())
    assert record["datasets"]["cartoons"]["accuracy"] == pytest.approx(80)


def test_shifted_labels_are_an_error_of_one_sentence_and_leave_no_record(datasets, tmp_path):
    written = datasets(SHOWN - 1, SHOWN)
    with pytest.raises(UserError) as error:
        check(written, tmp_path)
    message = str(error.value)
    for word in ("photos", "net", "100.0%", "0.0%", "labels_checked"):
        assert word in message
    for dataset in ("cartoons", "sketches"):
        assert dataset not in message
    assert "\n" not in message and not (tmp_path / "verdicts.json").exists()
    photos = check(written, tmp_path, labels_checked=["photos"])["datasets"]["photos"]
    assert (photos["verdict"], photos["better_mapping"]) == (OVERRIDDEN, "one_too_low")


def test_one_sentence_names_each_dataset_with_wrong_labels(datasets, tmp_path):
    written = datasets(SHOWN - 1, SHOWN)
    written["signs"] = write_dataset(tmp_path / "signs", SHOWN - 1, SHOWN)
    with pytest.raises(UserError) as error:
        check(written, tmp_path)
    message = str(error.value)
    assert "photos" in message and "signs" in message and "\n" not in message
    # and somebody who has looked at one of them vouches for that one alone
    with pytest.raises(UserError) as error:
        check(written, tmp_path, labels_checked=["photos"])
    message = str(error.value)
    assert "photos" not in message and "signs" in message


def test_images_of_an_object_count_once(datasets, tmp_path):
    """Corrupted copies of five photos are no hundred photos."""
    labels = np.repeat(np.arange(5), 40)
    objects = [f"photos/{label}" for label in labels]
    photos = check(datasets(labels, labels + 1, objects), tmp_path)["datasets"]["photos"]
    assert photos["images"] == 5 and photos["verdict"] == NOT_DECIDED


def test_copies_of_a_photo_count_once(datasets, tmp_path):
    """Five photos, each of them forty times as files of their own, are five photos."""
    labels = np.repeat(np.arange(5), 40)
    digests = [f"photo {label}" for label in labels]
    photos = check(datasets(labels, labels + 1, digests=digests), tmp_path)["datasets"]["photos"]
    assert photos["images"] == 5 and photos["verdict"] == NOT_DECIDED


def test_objects_that_share_a_photo_are_one(datasets, tmp_path):
    objects = ["a", "a", "b", "b", "c"]
    digests = ["1", "2", "2", "3", "4"]
    labels = np.arange(5)
    record = check(datasets(labels, labels, objects, digests), tmp_path)
    assert record["datasets"]["photos"]["images"] == 2


def test_the_table_has_each_dataset_with_its_best_other_mapping(datasets, tmp_path):
    record = check(datasets(TRUTH, predictions(0.7)), tmp_path)
    labels = {"photos": "Photos", "cartoons": "Cartoons", "proxy": "P", "sketches": "Sketches"}
    table = label_table(labels, [tmp_path / "verdicts.json"])
    assert list(table["label"]) == ["Photos", "Cartoons", "Sketches"]
    assert set(table["model"]) == {"net"} and set(table["verdict"]) == {AGREES}
    assert set(table["median_accuracy"]) == {record["median_accuracy"]}
    for row in table.to_dict("records"):
        mappings = record["datasets"][row["dataset"]]["mappings"]
        assert row["mapping_accuracy"] == max(of["accuracy"] for of in mappings.values())
        assert row["p_holm"] == mappings[row["mapping"]]["p_holm"]

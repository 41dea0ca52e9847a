"""Does a pretrained network agree with the labels of a dataset, or better with other labels?

Files may number classes from 1, or in another order than the catalogue says. Such labels look like
a dataset on which every network fails. So predictions of the pretrained network, which was trained
with labels from elsewhere, are compared with the stated labels and with each mapping of
`mappings_of`.

A network may agree with another mapping by chance, or because neighbouring classes look alike. A
run is stopped only if one mapping agrees significantly better than the stated labels, and about as
well as this network usually does on other datasets.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import binomtest

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.progress import log
from rib.catalog.label_space import LabelSpace
from rib.data.identity import joined_ids, read_identities
from rib.statistics.sample_rows import is_right
from rib.statistics.tests import holm

NO_CLASS = -1  # in a mapping: the label stands for no class of the dataset
LEVEL = 0.05  # a Holm-adjusted p of at most this is significant
# A better mapping's agreement beyond chance must reach this share of the network's median accuracy.
LEAST_SHARE = 0.5

# Orders in which classes may be numbered, to continue "the labels number the classes".
DESCRIPTION_OF_ORDER = {
    "name": "sorted by name",
    "key": "sorted by key",
    "wnid": "sorted by WordNet id",
    "text": "with their numbers sorted as text (0, 1, 10, 100, 11)",
}

AGREES = "agrees"
NOT_DECIDED = "not decided"
OTHER_LABELS = "other labels"  # another mapping is better, which stops a run
OVERRIDDEN = "overridden"  # another mapping is better, but the entry says `labels_checked: true`

REMEDY = (
    "correct classes or the layout's settings there, or set labels_checked: true if you have "
    "looked at the images."
)


@dataclass(frozen=True)
class LabelMapping:
    """Another class for each stated label: [1, 2, NO_CLASS] if labels are one too low."""

    description: str  # continues "if"
    classes: np.ndarray  # (classes,) int: class by stated label, or NO_CLASS


@dataclass(frozen=True)
class MappingComparison:
    """Agreement of a network with the labels of a mapping, compared with the stated labels."""

    accuracy: float  # 0 to 1
    beyond_chance: float  # Cohen's kappa: at most 1, and 0 by chance
    p: float  # of the exact paired test of both accuracies, two-sided
    p_holm: float  # adjusted for all mappings


@dataclass(frozen=True)
class LabelComparison:
    """Agreement of a network with the stated labels of a dataset, and with other mappings."""

    images: int  # one per object
    stated_accuracy: float  # 0 to 1
    median_accuracy: float  # 0 to 1, over the stated labels of all datasets, this one included
    of_mappings: Mapping[str, MappingComparison]  # such as {"one_too_low": ...}


@dataclass(frozen=True)
class Decision:
    """Verdict on the labels of a dataset."""

    verdict: str  # AGREES, NOT_DECIDED, OTHER_LABELS or OVERRIDDEN
    better_mapping: str | None  # such as "one_too_low"


def mappings_of(space: LabelSpace) -> dict[str, LabelMapping]:
    """Other labellings that a mistake may lead to, by name, such as "one_too_low"; all differ.

    Labels may be one too high or too low. Or the files number the classes in another order than the
    space (sorted by name, by key, by WordNet id, or folders 0, 1, 10, 100, 11 sorted as text), or
    the network's outputs do.
    """
    number_of_classes = len(space.keys)
    labels = np.arange(number_of_classes)
    one_later = labels + 1
    one_later[-1] = NO_CLASS
    one_earlier = labels - 1  # NO_CLASS for label 0
    sort_keys: dict[str, Sequence[Any]] = {
        "name": space.names,
        "key": space.keys,
        "wnid": space.indices,  # WordNet ids and ImageNet's outputs have the same order
        "text": [str(label) for label in labels],
    }
    candidates = {
        "one_too_low": LabelMapping("the labels are one too low", one_later),
        "one_too_high": LabelMapping("the labels are one too high", one_earlier),
    }
    for order, keys in sort_keys.items():
        sorted_by = DESCRIPTION_OF_ORDER[order]
        class_at_position = np.array(sorted(range(number_of_classes), key=keys.__getitem__))
        position_of_class = np.argsort(class_at_position)
        candidates[f"labels_by_{order}"] = LabelMapping(
            f"the labels number the classes {sorted_by}", class_at_position
        )
        candidates[f"outputs_by_{order}"] = LabelMapping(
            f"the network's outputs are the classes {sorted_by}", position_of_class
        )
    mappings: dict[str, LabelMapping] = {}
    distinct = {tuple(labels)}  # the stated mapping
    for name, mapping in candidates.items():
        if tuple(mapping.classes) not in distinct:
            distinct.add(tuple(mapping.classes))
            mappings[name] = mapping
    return mappings


def compare_mappings(
    labels: np.ndarray, predictions: np.ndarray, space: LabelSpace, median_accuracy: float
) -> LabelComparison:
    """Compare how often predictions are right by the stated labels and by other mappings.

    Each other mapping has an exact test of paired proportions (McNemar 1947, Psychometrika 12,
    153-157); Holm's correction is over the mappings.

    Args:
        labels: (images,) stated class of each image; images are independent.
        predictions: (images,) class that the network predicts.
        median_accuracy: 0 to 1, of the network on all datasets.
    """
    is_answer = _right_answers(space)
    is_right = is_answer[labels, predictions]
    accuracies = {}
    agreements_beyond_chance = {}
    p_values = {}
    for name, mapping in mappings_of(space).items():
        classes = mapping.classes[labels]
        is_right_in_mapping = is_answer[classes, predictions] & (classes != NO_CLASS)
        accuracies[name] = float(is_right_in_mapping.mean())
        agreements_beyond_chance[name] = _beyond_chance(
            accuracies[name], classes, predictions, is_answer
        )
        p_values[name] = _exact_p(is_right, is_right_in_mapping)
    adjusted = holm(np.array(list(p_values.values())))
    of_mappings = {}
    for name, p_holm in zip(p_values, adjusted, strict=True):
        of_mappings[name] = MappingComparison(
            accuracy=accuracies[name],
            beyond_chance=agreements_beyond_chance[name],
            p=p_values[name],
            p_holm=float(p_holm),
        )
    return LabelComparison(
        images=len(labels),
        stated_accuracy=float(is_right.mean()),
        median_accuracy=median_accuracy,
        of_mappings=of_mappings,
    )


def _right_answers(space: LabelSpace) -> np.ndarray:
    """Which predictions are right for a class: (classes, classes) bool."""
    is_answer = np.eye(len(space.keys), dtype=bool)
    for label, answers in enumerate(space.also):  # further right answers
        is_answer[label, list(answers)] = True
    return is_answer


def _beyond_chance(
    accuracy: float, classes: np.ndarray, predictions: np.ndarray, is_answer: np.ndarray
) -> float:
    """Agreement beyond chance (Cohen's kappa) of predictions with classes, at most 1."""
    # `classes` and `predictions` are (images,); a class may be NO_CLASS.
    # A network that always predicts the most frequent class agrees often, but by chance. Kappa is
    # (accuracy - chance) / (1 - chance) (Cohen 1960, Educational and Psychological Measurement 20,
    # 37-46).
    number_of_classes = len(is_answer)
    share_of_class = np.bincount(classes[classes != NO_CLASS], minlength=number_of_classes)
    share_of_prediction = np.bincount(predictions, minlength=number_of_classes)
    chance = float(share_of_class @ is_answer @ share_of_prediction) / len(classes) ** 2
    if chance == 1:
        return 0.0
    return (accuracy - chance) / (1 - chance)


def _exact_p(is_right: np.ndarray, is_right_in_mapping: np.ndarray) -> float:
    """Two-sided p of equal accuracy by two labellings; (images,) bool each."""
    # Only images that are right by one of them alone carry information.
    only_stated = int((is_right & ~is_right_in_mapping).sum())
    only_mapping = int((is_right_in_mapping & ~is_right).sum())
    if only_stated + only_mapping == 0:
        return 1.0
    return float(binomtest(only_mapping, only_stated + only_mapping, 0.5).pvalue)


def decide(comparison: LabelComparison, labels_checked: bool) -> Decision:
    """Decide whether labels agree with the network's predictions.

    Another mapping is better if it agrees significantly better than the stated labels, and its
    agreement beyond chance reaches half of the network's median accuracy. So a network that fails
    on a dataset, or predicts one class for all images, finds no better mapping. The labels agree if
    they are significantly better than every other mapping.

    Args:
        labels_checked: whether somebody has looked at the labels, which are then kept.
    """
    least_agreement = LEAST_SHARE * comparison.median_accuracy
    accuracy_of_better_mappings = {}
    are_labels_best = len(comparison.of_mappings) > 0
    for name, of_mapping in comparison.of_mappings.items():
        is_significant = of_mapping.p_holm <= LEVEL
        is_better = is_significant and of_mapping.accuracy > comparison.stated_accuracy
        is_worse = is_significant and of_mapping.accuracy < comparison.stated_accuracy
        if is_better and of_mapping.beyond_chance >= least_agreement:
            accuracy_of_better_mappings[name] = of_mapping.accuracy
        if not is_worse:
            are_labels_best = False
    if accuracy_of_better_mappings:
        best_mapping = max(accuracy_of_better_mappings, key=accuracy_of_better_mappings.__getitem__)
        return Decision(OVERRIDDEN if labels_checked else OTHER_LABELS, best_mapping)
    return Decision(AGREES if are_labels_best else NOT_DECIDED, None)


def check_labels(
    *,
    model: str,
    predictions: Mapping[str, pd.DataFrame],
    folders: Mapping[str, Path],
    labels_checked: Collection[str],
    verdicts: Path,
) -> None:
    """Check the labels of datasets by predictions of a pretrained network; write the verdicts.

    One image of each object is compared. Objects with identical images count as one, since copies
    add no evidence.

    Args:
        predictions: row, prediction and rank of images by dataset.
        folders: of the prepared datasets, by dataset.
        labels_checked: datasets whose entries have `labels_checked: true`.
        verdicts: JSON file to write: model, median_accuracy (percent), and datasets, such as
            {"noto": {"verdict": "agrees", "better_mapping": null, "images": 2000, "accuracy":
            71.0, "mappings": {"one_too_low": {"accuracy": 1.5, "p": 0.001, "p_holm": 0.008}}}}.

    Raises:
        UserError: other mappings are better for datasets, which it names, whose entries do not
            have `labels_checked: true`.
    """
    accuracies = [is_right(rows).mean() for rows in predictions.values()]
    median_accuracy = float(np.median(accuracies))
    records = {}
    wrong_labels = []
    for dataset, rows in predictions.items():
        folder = folders[dataset]
        space = LabelSpace.from_json(read_json(folder / "classes.json"))
        images = _first_of_each_object(rows, folder / "index.parquet")
        comparison = compare_mappings(
            labels=images["label"].to_numpy(np.int64),
            predictions=images["prediction"].to_numpy(np.int64),
            space=space,
            median_accuracy=median_accuracy,
        )
        decision = decide(comparison, dataset in labels_checked)
        records[dataset] = _record(comparison, decision)
        if decision.better_mapping is None:
            continue
        finding = _finding(model, dataset, comparison, decision.better_mapping, space)
        if decision.verdict == OTHER_LABELS:
            wrong_labels.append(finding)
        else:
            log.warning("%s; its entry says labels_checked, so the run goes on", finding)
    if wrong_labels:
        raise UserError(f"{'; '.join(wrong_labels)}; {REMEDY}")
    write_json(
        verdicts,
        {"model": model, "median_accuracy": 100 * median_accuracy, "datasets": records},
    )


def _first_of_each_object(predictions: pd.DataFrame, index_file: Path) -> pd.DataFrame:
    """label, object_id and prediction of one image per object, since images must be independent."""
    index = pd.read_parquet(index_file, columns=["label", "object_id"])
    index["object_id"] = _joined_objects(index["object_id"], read_identities(index_file))
    images = index.iloc[predictions["row"].to_numpy()]
    images = images.assign(prediction=predictions["prediction"].to_numpy())
    return images.drop_duplicates("object_id")


def _joined_objects(object_ids: pd.Series, identities: pa.Array) -> pd.Series:
    """Objects with identical images get the first of their ids, so they count as one."""
    first_id = joined_ids(pa.array(object_ids, pa.string()), identities)
    return object_ids.map(lambda object_id: first_id.get(object_id, object_id))


def _finding(
    model: str,
    dataset: str,
    comparison: LabelComparison,
    better_mapping: str,
    space: LabelSpace,
) -> str:
    """Beginning of a sentence: `noto: its labels seem to be wrong: net is right on ...`."""
    description = mappings_of(space)[better_mapping].description
    of_mapping = comparison.of_mappings[better_mapping]
    return (
        f"{dataset}: its labels seem to be wrong: {model} is right on {of_mapping.accuracy:.1%} of "
        f"its images (one per object) if {description} ({better_mapping}), and on "
        f"{comparison.stated_accuracy:.1%} by the dataset's entry"
    )


def _record(comparison: LabelComparison, decision: Decision) -> dict[str, object]:
    """Verdict on a dataset, with accuracies in percent."""
    mappings = {}
    for name, of_mapping in comparison.of_mappings.items():
        mappings[name] = {
            "accuracy": 100 * of_mapping.accuracy,
            "p": of_mapping.p,
            "p_holm": of_mapping.p_holm,
        }
    return {
        "verdict": decision.verdict,
        "better_mapping": decision.better_mapping,
        "images": comparison.images,
        "accuracy": 100 * comparison.stated_accuracy,
        "mappings": mappings,
    }

"""Correct predictions per run, dataset and resampling unit (object), from which all accuracies are computed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rib.config.run import RUN_COLUMNS

STATE = [*RUN_COLUMNS, "alpha"]
COLUMNS = [*STATE, "dataset", "object_id", "label", "prediction"]

# A scored model state: model, method, target, size, seed, alpha (None unless it is part of a curve).
State = tuple[str, str, str, str, int, float | None]
Index = slice | Sequence[int] | np.ndarray
EVERY = slice(None)  # index of all states or objects


@dataclass(frozen=True)
class Counts:
    """Correct predictions per object, for every state and dataset of a grid.

    Attributes:
        states: sorted states.
        datasets: names, in the rows' order.
        objects: total number of objects.
        places: by dataset, (n,) ascending indices of its objects.
        images: by dataset, (n,) uint16 number of images of each object.
        correct: by dataset, (states, n) uint16 number of correct predictions.
    """

    states: list[State]
    datasets: list[str]
    objects: int
    places: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    correct: dict[str, np.ndarray]

    def accuracy_on(self, dataset: str, weights: np.ndarray, states: Index, objects: Index) -> np.ndarray:
        """Accuracies of states on objects of a dataset, with weights (replicates, all objects), in percent.

        Returns:
            (replicates, states), NaN where a replicate has none of the objects.
        """
        counted = weights[:, self.places[dataset][objects]].astype(np.float64)
        right = counted @ self.correct[dataset][states][:, objects].T.astype(np.float64)
        shown = (counted @ self.images[dataset][objects].astype(np.float64))[:, None]
        return 100 * np.divide(right, shown, where=shown > 0, out=np.full_like(right, np.nan))

    def of(self, states: Sequence[int]) -> "Counts":
        """The counts of some states, by index."""
        correct = {dataset: right[states] for dataset, right in self.correct.items()}
        return replace(self, states=[self.states[place] for place in states], correct=correct)


def count(parts: Iterable[pd.DataFrame]) -> Counts:
    """Count correct predictions per state, dataset and object.

    Args:
        parts: evaluation rows of a grid with at least the columns `COLUMNS`. A part has all rows of its states on its
            datasets and is reduced before the next one is read.

    Raises:
        ValueError: two runs were scored on different images.
    """
    images: dict[str, pd.Series] = {}
    found: dict[State, dict[str, np.ndarray]] = {}
    for part in parts:
        right, objects = part["label"] == part["prediction"], part["object_id"].astype(str)
        groups = part.groupby([*STATE, "dataset"], observed=True, dropna=False).indices
        for (*state, alpha, dataset), rows in groups.items():
            answers = right.iloc[rows].groupby(objects.iloc[rows]).agg(["size", "sum"])
            if not images.setdefault(dataset, answers["size"]).equals(answers["size"]):
                raise ValueError("the runs were not scored on the same images")
            key = (*state, None if np.isnan(alpha) else alpha)
            found.setdefault(key, {})[dataset] = answers["sum"].to_numpy(np.uint16)
    states = sorted(found, key=lambda state: (state[:-1], state[-1] or 0))
    if any(found[state].keys() != images.keys() for state in states):
        raise ValueError("the runs were not scored on the same images")
    every = pd.Index(np.unique(np.concatenate([sizes.index.to_numpy() for sizes in images.values()])))
    return Counts(
        states=states,
        datasets=list(images),
        objects=len(every),
        places={dataset: every.get_indexer(sizes.index) for dataset, sizes in images.items()},
        images={dataset: sizes.to_numpy(np.uint16) for dataset, sizes in images.items()},
        correct={dataset: np.stack([found[state][dataset] for state in states]) for dataset in images},
    )


def write_counts(counts: Counts, path: Path) -> None:
    """Write counts as .npz; the same counts give the same bytes.

    The file contains `facts` (JSON: states, datasets, objects), `places/<dataset>`, `images/<dataset>` and
    `correct/<model>/<dataset>`, each of which can be read separately.
    """
    facts = {"states": counts.states, "datasets": counts.datasets, "objects": counts.objects}
    arrays = {"facts": np.array(json.dumps(facts, default=int))}  # seeds have a type that JSON doesn't support
    for dataset in counts.datasets:
        arrays[f"places/{dataset}"] = counts.places[dataset]
        arrays[f"images/{dataset}"] = counts.images[dataset]
    for model in dict.fromkeys(state[0] for state in counts.states):
        own = counts.of([place for place, state in enumerate(counts.states) if state[0] == model])
        arrays |= {f"correct/{model}/{dataset}": right for dataset, right in own.correct.items()}
    np.savez_compressed(path, **arrays)


def read_counts(path: Path) -> Iterable[Counts]:
    """Yield the counts of one model at a time; places still index all objects."""
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        states = [tuple(state) for state in facts["states"]]
        shared = {part: {name: stored[f"{part}/{name}"] for name in facts["datasets"]} for part in ("places", "images")}
        for model in dict.fromkeys(state[0] for state in states):
            yield Counts(
                states=[state for state in states if state[0] == model],
                datasets=facts["datasets"],
                objects=facts["objects"],
                correct={name: stored[f"correct/{model}/{name}"] for name in facts["datasets"]},
                **shared,
            )

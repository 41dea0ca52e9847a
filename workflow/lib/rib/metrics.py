"""From rows per image to accuracies, RI and mRI with intervals. Pure functions of tables; no torch.

Definitions (arXiv 2410.21582, section 3), all in percentage points, A_pre(j) the pretrained model's accuracy on
dataset j and A_i(j) the accuracy after fine-tuning on target i:

    RI_i       = mean over datasets j != i of A_i(j) - A_pre(j)
    ood_before = mean over targets i of the mean over j != i of A_pre(j)
    ood_after  = mean over targets i of the mean over j != i of A_i(j)
    mRI        = mean over i of RI_i = ood_after - ood_before

Datasets j are those out of distribution, evaluation-only ones among them.

With several seeds, each is the mean over seeds too; sizes of the training part are kept apart. A run that is a curve
has a state per alpha; its numbers are in a table of their own.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from rib.io import Progress, UserError, log, read_json, write_json, write_table
from rib.runs import ALL, NO_TARGET, PRETRAINED

RUN = ["model", "method", "target", "size", "seed"]
STATE = [*RUN, "alpha"]
COLUMNS = [*STATE, "dataset", "object_id", "label", "prediction"]

# A model state that was scored: model, method, target, size, seed, alpha (None unless of a curve).
State = tuple[str, str, str, str, int, float | None]
Index = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Counts:
    """Correct answers per object, for every state and dataset of a grid.

    Attributes:
        states: each, sorted.
        datasets: names, in the rows' order.
        objects: how many there are in all.
        places: by dataset, (n,) of its objects among all of them, ascending.
        images: by dataset, (n,) uint16 images of each.
        correct: by dataset, (states, n) uint16 images answered right.
    """

    states: list[State]
    datasets: list[str]
    objects: int
    places: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    correct: dict[str, np.ndarray]

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """Accuracies in percent under weights of the objects.

        Args:
            weights: (replicates, objects), how often each object counts.

        Returns:
            (replicates, states, datasets).
        """
        every = slice(None)
        return np.stack([self.accuracy_on(dataset, weights, every, every) for dataset in self.datasets], axis=2)

    def accuracy_on(self, dataset: str, weights: np.ndarray, states: Index, objects: Index) -> np.ndarray:
        """Accuracies of some states on some objects of a dataset, in percent: (replicates, states)."""
        counted = weights[:, self.places[dataset][objects]].astype(np.float64)  # of one dataset, since they are many
        right = counted @ self.correct[dataset][states][:, objects].T.astype(np.float64)
        shown = (counted @ self.images[dataset][objects].astype(np.float64))[:, None]
        return 100 * np.divide(right, shown, where=shown > 0, out=np.full_like(right, np.nan))

    def of(self, states: Sequence[int]) -> "Counts":
        """The counts of some states, by place."""
        correct = {dataset: right[states] for dataset, right in self.correct.items()}
        return replace(self, states=[self.states[place] for place in states], correct=correct)

    def shared(self, dataset: str, target: str) -> np.ndarray:
        """Which of a dataset's objects the target has too: (n,) bool."""
        return np.isin(self.places[dataset], self.places[target], assume_unique=True)


def count(parts: Iterable[pd.DataFrame]) -> Counts:
    """Correct answers per state, dataset and object.

    Args:
        parts: evaluation rows of a grid with at least the columns of `COLUMNS`; a part has all rows of its states on
            its datasets, and is reduced to its objects before the next is read.

    Raises:
        ValueError: two runs were scored on different images.
    """
    names: dict[str, pd.Index] = {}
    images: dict[str, np.ndarray] = {}
    found: dict[State, dict[str, np.ndarray]] = {}
    for part in parts:
        right = (part["label"] == part["prediction"]).to_numpy()
        for (*state, alpha, dataset), rows in part.groupby(
            [*STATE, "dataset"], observed=True, dropna=False
        ).indices.items():
            objects = part["object_id"].iloc[rows].astype(str)
            if dataset not in names:
                names[dataset] = pd.Index(np.unique(objects))
            places = names[dataset].get_indexer(objects)
            total, correct = (
                np.bincount(places[chosen], minlength=len(names[dataset])) if (places >= 0).all() else None
                for chosen in (slice(None), right[rows])
            )
            if total is None or (images.setdefault(dataset, total.astype(np.uint16)) != total).any():
                raise ValueError("the runs were not scored on the same images")
            key = (*state, None if np.isnan(alpha) else alpha)
            found.setdefault(key, {})[dataset] = correct.astype(np.uint16)
    states = sorted(found, key=lambda state: (state[:-1], state[-1] or 0))
    if any(found[state].keys() != names.keys() for state in states):
        raise ValueError("the runs were not scored on the same images")
    every = pd.Index(np.unique(np.concatenate([index.to_numpy() for index in names.values()])))
    return Counts(
        states=states,
        datasets=list(names),
        objects=len(every),
        places={dataset: every.get_indexer(index) for dataset, index in names.items()},
        images=images,
        correct={dataset: np.stack([found[state][dataset] for state in states]) for dataset in names},
    )


def write_counts(counts: Counts, path: Path) -> None:
    """Write counts as .npz, so that rows are read once; the same counts give the same bytes.

    It holds `facts` (JSON: states, datasets, objects), `places/<dataset>`, `images/<dataset>`, and per model
    `correct/<model>/<dataset>`: each can be read without the others.
    """
    facts = {"states": counts.states, "datasets": counts.datasets, "objects": counts.objects}
    arrays = {"facts": np.array(json.dumps(facts, default=int))}  # seeds are of a kind that JSON does not know
    for dataset in counts.datasets:
        arrays[f"places/{dataset}"] = counts.places[dataset]
        arrays[f"images/{dataset}"] = counts.images[dataset]
    for model in dict.fromkeys(state[0] for state in counts.states):
        own = counts.of([place for place, state in enumerate(counts.states) if state[0] == model])
        arrays |= {f"correct/{model}/{dataset}": right for dataset, right in own.correct.items()}
    np.savez_compressed(path, **arrays)


def read_counts(path: Path) -> Iterable[Counts]:
    """The counts of each model in turn, which is all that is in memory; places stay those among all objects."""
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


def object_weights(objects: int, replicates: int, seed: int) -> np.ndarray:
    """Bootstrap weights: row 0 counts every object once, each further row draws as many with replacement.

    One draw serves all runs and datasets, so that differences between them keep their pairing.

    Returns:
        (replicates + 1, objects) uint8: no object is drawn 256 times.
    """
    rng, uniform = np.random.default_rng(seed), np.full(objects, 1 / objects)
    weights = np.ones((replicates + 1, objects), np.uint8)
    for row in weights[1:]:
        row[:] = rng.multinomial(objects, uniform)
    return weights


def accuracy_table(counts: Counts) -> pd.DataFrame:
    """One line per run and dataset: model, method, target, size, seed, dataset, n, correct, accuracy (percent)."""
    lines = []
    images = {dataset: int(counts.images[dataset].sum()) for dataset in counts.datasets}
    correct = {dataset: counts.correct[dataset].sum(axis=1) for dataset in counts.datasets}
    for place, state in enumerate(counts.states):
        if state[-1] is None:
            for dataset in counts.datasets:
                n, right = images[dataset], int(correct[dataset][place])
                lines.append((*state[:-1], dataset, n, right, 100 * right / n))
    return pd.DataFrame(lines, columns=[*RUN, "dataset", "n", "correct", "accuracy"])


@dataclass(frozen=True)
class Ood:
    """Mean accuracy off the target, of one fine-tuned state.

    Attributes:
        before: (replicates,) percent, the pretrained model's.
        after: (replicates,) percent, the state's own.
        images: how many each is over.
    """

    before: np.ndarray
    after: np.ndarray
    images: int


def ood_accuracies(
    counts: Counts,
    weights: np.ndarray,
    among: Collection[str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[State, Ood]:
    """Mean accuracy off the target before and after fine-tuning, for every fine-tuned state.

    Args:
        counts: of a grid.
        weights: (replicates, objects), see `object_weights`.
        among: datasets that are out of distribution, all when None.
        groups: leak-free: by dataset, the name of the source images that it shares with others. What an object of the
            target's is made from is left out of the other datasets of its group, before and after alike; a dataset of
            which nothing is left drops out of the mean.

    Returns:
        By state the means over datasets j != target of A_pre(j) and A_i(j).

    Raises:
        UserError: nothing is left of all datasets.
    """
    states = [state for state in counts.states if state[1] != PRETRAINED]
    place = {state: position for position, state in enumerate(counts.states)}
    accuracy = counts.accuracy(weights)
    found = {}
    for target in sorted({state[2] for state in states}):
        left = off_target(counts, target, among, groups or {})
        images = sum(
            int(counts.images[name][slice(None) if kept is None else kept].sum()) for name, kept in left.items()
        )
        of_target = [state for state in states if state[2] == target]
        before = [place[model, PRETRAINED, NO_TARGET, ALL, 0, None] for model, *_ in of_target]
        after = [place[state] for state in of_target]
        means = [
            np.mean([_on(counts, accuracy, weights, name, rows, kept) for name, kept in left.items()], axis=0)
            for rows in (before, after)
        ]
        found |= {state: Ood(means[0][:, i], means[1][:, i], images) for i, state in enumerate(of_target)}
    return {state: found[state] for state in states}


def ri_parts(
    counts: Counts, among: Collection[str] | None = None, groups: Mapping[str, str] | None = None
) -> dict[State, np.ndarray]:
    """What each object adds to the RI of every fine-tuned state.

    Args:
        counts, among, groups: as in `ood_accuracies`.

    Returns:
        By state (objects,) percentage points, whose sum is RI: a dataset is divided by the number of its images,
        whichever objects one looks at.
    """
    place = {state: position for position, state in enumerate(counts.states)}
    found = {}
    for target in sorted({state[2] for state in counts.states if state[1] != PRETRAINED}):
        left = off_target(counts, target, among, groups or {})
        for state in counts.states:
            if state[2] == target:
                rows = [place[state], place[state[0], PRETRAINED, NO_TARGET, ALL, 0, None]]
                found[state] = np.zeros(counts.objects)
                for name, kept in left.items():
                    chosen = slice(None) if kept is None else kept
                    after, before = counts.correct[name][rows][:, chosen].astype(np.float64)
                    n = counts.images[name][chosen].sum(dtype=np.int64)
                    found[state][counts.places[name][chosen]] += 100 * (after - before) / n / len(left)
    return found


def off_target(
    counts: Counts, target: str, among: Collection[str] | None, groups: Mapping[str, str]
) -> dict[str, np.ndarray | None]:
    """Datasets that RI of a target is the mean over, and which of their objects count: (n,) bool, None for all.

    Args: see `ood_accuracies`.

    Raises:
        UserError: nothing is left of all datasets.
    """
    others = [name for name in counts.datasets if name != target and (among is None or name in among)]
    left = {name: _leak_free(counts, name, target, groups) for name in others}
    left = {name: objects for name, objects in left.items() if objects is None or objects.any()}
    if not left:
        raise UserError(
            f"leak_free: every dataset was made from the images that {target} was made from, so nothing is left to "
            "evaluate on; set leak_free to false or evaluate on more datasets."
        )
    return left


def _leak_free(counts: Counts, dataset: str, target: str, groups: Mapping[str, str]) -> np.ndarray | None:
    """Which of a dataset's objects stay when the target's are left out: (n,) bool, None for all."""
    if dataset not in groups or target not in counts.places or groups.get(target) != groups[dataset]:
        return None
    shared = counts.shared(dataset, target)
    return ~shared if shared.any() else None


def _on(
    counts: Counts,
    accuracy: np.ndarray,
    weights: np.ndarray,
    dataset: str,
    states: Sequence[int],
    kept: np.ndarray | None,
) -> np.ndarray:
    """Accuracies of some states on a dataset or the part of it that is kept: (replicates, states)."""
    if kept is None:
        return accuracy[:, states, counts.datasets.index(dataset)]
    return counts.accuracy_on(dataset, weights, states, kept)


def interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates (replicates,).

    A replicate is NaN when it drew nothing of a dataset, which happens where one has a handful of objects.
    """
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def ri_table(ood: Mapping[State, Ood], confidence: float) -> pd.DataFrame:
    """One line per state: model, method, target, size, seed, alpha, n, ri, ci_low, ci_high (percentage points).

    n is the number of images that the state was scored on off its target.
    """
    lines = []
    for state, pair in ood.items():
        change = pair.after - pair.before
        lines.append((*state, pair.images, change[0], *interval(change[1:], confidence)))
    return pd.DataFrame(lines, columns=[*STATE, "n", "ri", "ci_low", "ci_high"]).astype({"alpha": float})


def curve_table(ri: pd.DataFrame, counts: Counts, ood: Mapping[State, Ood], confidence: float) -> pd.DataFrame:
    """The states of curves: what `ri_table` says of each, and accuracies on the target (downstream) and off it (ood).

    Accuracies are in percent; that off the target has an interval, downstream is NaN where the target is not evaluated.
    """
    place = {state: position for position, state in enumerate(counts.states)}

    def downstream(state: State) -> float:
        target = state[2]
        if target not in counts.datasets:
            return np.nan
        return 100 * counts.correct[target][place[state]].sum() / counts.images[target].sum()

    after = [
        (downstream(state), pair.after[0], *interval(pair.after[1:], confidence))
        for state, pair in ood.items()
        if state[-1] is not None
    ]
    ri = ri.dropna(subset=["alpha"])
    named = pd.DataFrame(after, columns=["downstream", "ood", "ood_low", "ood_high"], index=ri.index)
    return pd.concat([ri[STATE], named, ri[["n", "ri", "ci_low", "ci_high"]]], axis=1)


def mri_tables(ood: Mapping[State, Ood], confidence: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """mRI per model, method and size, and the two mean accuracies it is the difference of; curves are left out.

    Returns:
        mri: model, method, size, mri, ci_low, ci_high, ood_before, ood_after;
        ood: model, method, size, when (before or after), accuracy, ci_low, ci_high. All in percent.
    """
    groups: dict[tuple[str, str, str], list[Ood]] = {}
    for (model, method, _, size, _, alpha), pair in ood.items():
        if alpha is None:
            groups.setdefault((model, method, size), []).append(pair)
    mri, means = [], []
    for key, pairs in groups.items():
        before, after = (np.mean([getattr(pair, when) for pair in pairs], axis=0) for when in ("before", "after"))
        mri.append((*key, (after - before)[0], *interval((after - before)[1:], confidence), before[0], after[0]))
        for when, values in (("before", before), ("after", after)):
            means.append((*key, when, values[0], *interval(values[1:], confidence)))
    names = ["model", "method", "size"]
    return (
        pd.DataFrame(mri, columns=[*names, "mri", "ci_low", "ci_high", "ood_before", "ood_after"]),
        pd.DataFrame(means, columns=[*names, "when", "accuracy", "ci_low", "ci_high"]),
    )


def write_tables(
    *,
    rows: Iterable[Path],
    manifests: Iterable[Path],
    among: Collection[str],
    groups: Mapping[str, str] | None,
    conditions: str,
    replicates: int,
    confidence: float,
    seed: int,
    outputs: Mapping[str, Path],
) -> None:
    """Write accuracy, ri, mri, mri_json, ood, curves and counts from the evaluation rows of a grid.

    Args:
        rows: Parquet files.
        manifests: of the same evaluations.
        among: datasets that are out of distribution and count in RI.
        groups: see `ood_accuracies`; None unless the tables are to be leak-free.
        conditions: what the numbers hang on besides their columns; the last column of each table.
        replicates: bootstrap replicates.
        confidence: coverage of the intervals, between 0 and 1.
        seed: of the resampling.
        outputs: path of each table.

    Raises:
        UserError: the runs were not all evaluated on one kind of device, whose arithmetic differs.
    """
    devices = {read_json(path)["device"] for path in manifests}
    if len(devices) > 1:
        raise UserError(
            f"the grid mixes evaluations on {' and '.join(sorted(devices))}, whose precision differs; set compute.device in "
            "config.yaml to one of them, so that the others are evaluated again."
        )
    files = Progress(rows, desc="reading rows", unit="file")
    counts = count(pd.read_parquet(path, columns=COLUMNS) for path in files)
    write_counts(counts, outputs["counts"])
    ood = ood_accuracies(counts, object_weights(counts.objects, replicates, seed), among, groups)
    mri, means = mri_tables(ood, confidence)
    ri = ri_table(ood, confidence)
    if groups:
        for target, images in ri.groupby("target")["n"].first().items():
            log.info("leak-free: off the target %s, %d images remain", target, images)
    tables = {
        "accuracy": accuracy_table(counts),
        "ri": ri[ri["alpha"].isna()].drop(columns="alpha"),
        "mri": mri,
        "ood": means,
        "curves": curve_table(ri, counts, ood, confidence),
    }
    for name, table in tables.items():
        write_table(outputs[name], table.assign(conditions=conditions))
    write_json(outputs["mri_json"], json_by_method(mri))


def json_by_method(mri: pd.DataFrame) -> dict:
    """mRI as {model: {method: mri}}, a value per column of `dvc metrics show`; rounded as the CSV is.

    A size of the training part other than all is named with the method: `ft, 0.5`.
    """
    nested: dict[str, dict] = {}
    for line in mri.to_dict("records"):
        method = line["method"] if line["size"] == ALL else f"{line['method']}, {line['size']}"
        nested.setdefault(line["model"], {})[method] = round(line["mri"], 6)
    return nested

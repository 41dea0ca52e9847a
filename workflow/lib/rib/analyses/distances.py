"""Distances between datasets, and their relation to effects of fine-tuning.

rules/features.smk measures them from pretrained features and by compression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rib.base.appearance import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
)
from rib.config.analysis import Analysis, Column, Figure, Table
from rib.config.shared_sources import leak_free_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

    from rib.config.grid import Grid
    from rib.config.labels import GridLabels
    from rib.config.paths import Paths
    from rib.figures import Drawn, Labels
    from rib.statistics.inputs import Inputs

DISTANCES = Table(
    title="Distances between datasets",
    question="why",
    note=(
        "In the input space of the pretrained model's head: optimal transport dataset distance "
        "(otdd), unbiased squared maximum mean discrepancy (mmd2) and Frechet distance of "
        "Gaussians. ncd: normalised compression distance of pixels, without a model. All datasets "
        "contribute the same number of images."
    ),
    columns=[
        Column("Model", "model"),
        Column("First", "first"),
        Column("Second", "second"),
        Column("Distance", "distance"),
        Column("Value", "value", form="decimals"),
        Column("Images of each", "n"),
        Column("Details", "note"),
    ],
)
ASSOCIATION = Table(
    title="Distance and change of accuracy",
    question="why",
    note=(
        "Correlations of distance with the effect of fine-tuning. pairs: distance between target "
        "and another dataset, with the change of accuracy there; targets: distance to the "
        "in-distribution dataset, else mean distance to the others, with RI; in_distribution: that "
        "distance, with the change of accuracy in distribution. p is two-sided, from permutations "
        "of targets (pairs: Mantel test), not adjusted for multiple tests. Intervals are Fisher's; "
        "pairs are not independent and have none."
    ),
    columns=[
        Column("Model", "model"),
        Column("Method", "method"),
        Column("Size", "size", form="text"),
        Column("Distance", "distance"),
        Column("Level", "level"),
        Column("Statistic", "statistic"),
        Column("Correlation", "value", form="decimals", interval=("ci_low", "ci_high")),
        Column("p", "p", form="p"),
        Column("Permutations", "permutations"),
        Column("Exact", "exact"),
        Column("Points", "n"),
    ],
)
CAPTION_OF_DROP = """\
Whether a target's distance predicts what fine-tuning on it does to robustness. Each point is a
target, at its distance to what the models were pretrained for or, where no such dataset is there,
at its mean distance to the other datasets; above each panel the correlations with p over all
permutations of the targets (random ones where there are too many). With a handful of targets only a
very strong association differs clearly from none.
"""
CAPTION_OF_MATRIX = """\
Distances between the datasets, in the space of the pretrained model's features before its head
(OTDD, MMD², Fréchet distance) and by compressing pixels together (NCD: 0 for equal datasets, 1
where nothing is shared). Compare pairs with each other, not with 0: MMD² is unbiased and may be
below 0 where datasets do not differ clearly, and OTDD and Fréchet distance are above 0 even between
samples of one source. Where NCD is near 1 everywhere, small differences mean nothing.
"""
KINDS = {"otdd": "OTDD", "mmd2": "MMD²", "frechet": "Fréchet distance", "ncd": "NCD"}
# Without yellow, which is too light for thin lines.
COLOURS = [BLUE, VERMILION, GREEN, PURPLE, SKY_BLUE, ORANGE, BLACK]
MARKERS = "osD^vP*X<>"
EDGES: dict[str, Any] = {
    "markeredgecolor": "black",
    "markeredgewidth": 0.4,
    "elinewidth": 1,
    "capsize": 2,
}
COLUMNS = ["model", "distance", "target", "value", "ri", "ci_low", "ci_high"]


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis:
    """Declare to Snakemake tables and figures of distances and their relation to RI."""
    datasets = {dataset.name: dataset for dataset in grid.datasets_read()}
    # An evaluated dataset in distribution, else the pretraining proxy's dataset.
    in_distribution = next(
        (name for name, dataset in datasets.items() if dataset.role != "ood"), None
    )
    table_paths = {name: paths.table(name) for name in ("distances", "association")}
    folder = paths.stage("distances")
    figures = {}
    if labels.has_figures:
        figures["distance_drop"] = Figure(
            question="why",
            caption=CAPTION_OF_DROP,
            inputs={**table_paths, "ri": paths.table("ri")},
            params={
                "models": labels.models,
                "targets": labels.targets,
                "example": labels.one_method,
                "kinds": KINDS,
                "ood_datasets": grid.ood,
                "in_distribution": in_distribution,
                "in_distribution_label": (
                    datasets[in_distribution].label if in_distribution else None
                ),
                "confidence": labels.confidence,
            },
        )
        figures["distance_matrix"] = Figure(
            question="why",
            caption=CAPTION_OF_MATRIX,
            inputs={"distances": table_paths["distances"]},
            params={
                "models": labels.models,
                "datasets": {name: dataset.label for name, dataset in datasets.items()},
                "kinds": KINDS,
            },
        )
    return Analysis(
        inputs={
            "features": [f"{folder}/{model}/features.csv" for model in grid.models],
            "compression": [
                f"{folder}/{paths.geometry_of(model)}/compression.csv" for model in grid.models
            ],
            "accuracy": paths.table("accuracy"),
            "ri": paths.table("ri"),
            "fit": paths.table("fit"),
        },
        params={
            "models": list(grid.models),
            "targets": list(grid.targets),
            "ood_datasets": grid.ood,
            "in_distribution": in_distribution,
            # Accuracies of pairs use all images, which a leak-free RI does not.
            "pairs": leak_free_groups(grid) is None,
            "confidence": labels.confidence,
            "seed": grid.config["statistics"]["seed"],
        },
        makes=["distances.csv", "association.csv"],
        tables={"distances": DISTANCES, "association": ASSOCIATION},
        figures=figures,
        on_demand=True,
    )


def tables(inputs: Inputs) -> dict[str, pd.DataFrame]:
    """Tables to write: distances, and association (correlations with RI, accuracy)."""
    from rib.statistics.association import all_distances, association_table

    params = inputs.params
    distances = all_distances(
        params["models"], inputs.paths("features"), inputs.paths("compression")
    )
    association = association_table(
        distances,
        inputs.table("accuracy"),
        inputs.table("ri"),
        targets=params["targets"],
        ood_datasets=params["ood_datasets"],
        in_distribution=params["in_distribution"],
        pairs=params["pairs"],
        confidence=params["confidence"],
        seed=params["seed"],
    )
    return {"distances": distances, "association": association}


def draw_distance_drop(
    distances: pd.DataFrame,
    association: pd.DataFrame,
    ri: pd.DataFrame,
    *,
    models: Labels,
    targets: Labels,
    example: Mapping[str, str],
    kinds: Labels,
    ood_datasets: Sequence[str],
    in_distribution: str | None,
    in_distribution_label: str | None,
    confidence: float,
) -> Drawn:
    """Draw RI (mean change of accuracy) of each target against the target's distance.

    Panels are models by kinds of distance, with correlations above. Whiskers are intervals of RI.

    Args:
        distances: columns model, first, second, distance, value.
        association: columns model, method, distance, level, statistic, value, p.
        ri: columns model, method, target, seed, ri, ci_low, ci_high; seeds are averaged.
        models, targets: labels, {"net": "Net"}.
        example: the drawn method: {"method": "ft", "method_label": "FT"}.
        kinds: label of each kind of distance, which has a column of panels: {"ncd": "NCD"}.
        ood_datasets: datasets that count in RI.
        in_distribution, in_distribution_label: dataset to which distances are measured; None for
            the mean distance to the other datasets.
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    from rib.statistics.association import to_targets

    method = example["method"]
    ri_of_method = ri[ri["method"] == method]
    size = (0.6 + 2.0 * len(kinds), 1.1 + 2.0 * len(models))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=size, squeeze=False, sharex="col", sharey="row"
    )
    points_of_panels = []
    for row_of_panels, (model, model_label) in zip(panels, models.items(), strict=True):
        ri_of_model = ri_of_method[ri_of_method["model"] == model]
        for axes, kind in zip(row_of_panels, kinds, strict=True):
            is_shown_here = (distances["model"] == model) & (distances["distance"] == kind)
            distance_of_target = to_targets(
                distances[is_shown_here], list(targets), ood_datasets, in_distribution
            )
            points = _points(distance_of_target, ri_of_model)
            _draw_points(axes, points, targets)
            axes.set_title(_correlations(association, model, method, kind), fontsize=7)
            points_of_panels.append(points.assign(model=model, distance=kind))
        row_of_panels[0].set_ylabel(f"{model_label}\nRI (percentage points)", fontsize=8)
    for axes, kind_label in zip(panels[-1], kinds.values(), strict=True):
        axes.set_xlabel(kind_label, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(targets), 5),
        title=f"target of {example['method_label']}",
    )
    distance = "mean distance to the other datasets"
    if in_distribution:
        distance = f"distance to {in_distribution_label}"
    figure.supxlabel(
        f"horizontal axis: {distance}; whiskers: {confidence:.0%} confidence intervals of RI",
        fontsize=7,
    )
    return figure, pd.concat(points_of_panels, ignore_index=True)[COLUMNS]


def _points(distance_of_target: Mapping[str, float], ri: pd.DataFrame) -> pd.DataFrame:
    """Points to draw, means over seeds: target, value (its distance), ri, ci_low, ci_high.

    `distance_of_target` is such as {"noto": 0.3}.
    """
    mean_ri = ri.groupby("target")[["ri", "ci_low", "ci_high"]].mean()
    points = mean_ri.loc[list(distance_of_target)].rename_axis("target").reset_index()
    return points.assign(value=points["target"].map(distance_of_target))


def _draw_points(axes: Axes, points: pd.DataFrame, targets: Labels) -> None:
    """Draw RI with whiskers against distance; a target looks the same in all panels."""
    from matplotlib.ticker import MaxNLocator

    axes.axhline(0, color=DARK_GREY, linewidth=0.8)
    for i, point in enumerate(points.to_dict("records")):
        whiskers = [[point["ri"] - point["ci_low"]], [point["ci_high"] - point["ri"]]]
        axes.errorbar(
            point["value"],
            point["ri"],
            whiskers,
            linestyle="none",
            label=targets[point["target"]],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            **EDGES,
        )
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=7)


def _correlations(association: pd.DataFrame, model: str, method: str, kind: str) -> str:
    """Title of a panel: a line per statistic, such as `Pearson +0.512 (p = 0.23)`."""
    correlations = association[
        (association["model"] == model)
        & (association["method"] == method)
        & (association["distance"] == kind)
        & (association["level"] == "targets")
    ]
    if correlations["value"].isna().any():
        return "too few or equal points"
    lines = []
    for row in correlations.to_dict("records"):
        lines.append(f"{row['statistic'].title()} {row['value']:+.3f} (p = {row['p']:.2g})")
    return "\n".join(lines).replace("-", "\N{MINUS SIGN}")


def draw_distance_matrix(
    distances: pd.DataFrame, *, models: Labels, datasets: Labels, kinds: Labels
) -> Drawn:
    """Draw the distances between datasets, one matrix per model and kind of distance.

    Args:
        distances: columns model, first, second, distance, value, n.
        models, datasets: labels, {"noto": "Noto"}.
        kinds: label of each kind of distance, which has a column of panels: {"ncd": "NCD"}.
    """
    import matplotlib.pyplot as plt

    side = 0.34 * len(datasets)  # of a matrix, in inches
    size = (1.0 + len(kinds) * (side + 0.25), 1.0 + len(models) * (side + 0.35))
    figure, panels = plt.subplots(
        len(models), len(kinds), figsize=size, squeeze=False, sharex=True, sharey=True
    )
    for row_of_panels, (model, model_label) in zip(panels, models.items(), strict=True):
        for axes, (kind, kind_label) in zip(row_of_panels, kinds.items(), strict=True):
            is_shown_here = (distances["model"] == model) & (distances["distance"] == kind)
            shown_here = distances[is_shown_here]
            _draw_distances(axes, _lower_triangle(shown_here, datasets))
            axes.set_title(f"{kind_label}, n = {shown_here['n'].iloc[0]}", fontsize=8)
            _name_datasets(axes, list(datasets.values()))
        row_of_panels[0].set_ylabel(model_label, fontsize=9)
    figure.supxlabel(
        "darker: larger distance (range per panel); n: images of each dataset", fontsize=7
    )
    return figure, distances[distances["model"].isin(list(models))]


def _lower_triangle(distances: pd.DataFrame, datasets: Labels) -> np.ndarray:
    """Symmetric distances (datasets, datasets), each once: NaN on and above the diagonal."""
    import numpy as np

    from rib.statistics.association import matrix_of

    names = list(datasets)
    matrix = matrix_of(distances).reindex(index=names, columns=names)
    is_below_diagonal = np.tri(len(names), k=-1)
    return np.where(is_below_diagonal, matrix, np.nan)


def _draw_distances(axes: Axes, matrix: np.ndarray) -> None:
    """Colour the cells of a matrix by distance and write the numbers; NaN stays empty."""
    import numpy as np

    from rib.figures import text_colour

    image = axes.imshow(matrix, cmap="Blues", aspect="equal")
    decimals = _decimals(matrix)
    for row, column in np.argwhere(~np.isnan(matrix)):
        distance = matrix[row, column]
        axes.text(
            column,
            row,
            f"{distance:.{decimals}f}",
            ha="center",
            va="center",
            fontsize=5.5,
            color=text_colour(image, distance),
        )


def _decimals(matrix: np.ndarray) -> int:
    """Decimals to write, 0 to 3, enough to distinguish the values: 2 for 0.3 to 5.1."""
    import numpy as np

    spread = np.nanmax(matrix) - np.nanmin(matrix)
    if np.isnan(spread) or spread == 0:
        return 1
    return int(np.clip(2 - np.floor(np.log10(spread)), 0, 3))


def _name_datasets(axes: Axes, labels: list[str]) -> None:
    """Write the datasets' names beside the matrix.

    The first row and the last column of a lower triangle are empty.
    """
    axes.set_xticks(range(len(labels) - 1), labels[:-1], rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(1, len(labels)), labels[1:], fontsize=7)
    axes.set(xlim=(-0.5, len(labels) - 1.5), ylim=(len(labels) - 0.5, 0.5))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)

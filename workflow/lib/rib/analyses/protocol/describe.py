"""Schematic of the benchmark with an example from this run.

Source: arXiv 2410.21582, schematic of the protocol (per dataset accuracy before, after, change).
"""

from rib.grid.grid import Grid
from rib.grid.labels import GridLabels
from rib.grid.leaks import leak_free_groups
from rib.grid.paths import Paths
from rib.schema.analysis import Analysis, Figure

CAPTION = """\
The protocol, with this run's numbers for one model and one target. RI is the mean change of
accuracy over the out-of-distribution datasets other than the target; datasets in distribution do
not count. mRI is the mean of RI over targets. Rows in grey are not in RI: the target, datasets in
distribution, variants of another dataset and, with ``leak_free``, datasets that share source
images.
"""


def describe(grid: Grid, paths: Paths, labels: GridLabels) -> Analysis | None:
    """Declare to Snakemake the figure protocol; None without runs to show."""
    if not labels.has_figures:
        return None
    inputs = {name: paths.table(name) for name in ("accuracy", "ri", "mri")}
    if grid.split_fractions:
        inputs["data"] = paths.table("data")
    return Analysis(
        figures={
            "protocol": Figure(
                question="trust",
                caption=CAPTION,
                inputs=inputs,
                params={
                    "example": {
                        **labels.one_model,
                        **labels.one_method,
                        "target": labels.example_target,
                        "size": grid.shown_size,
                    },
                    "left_out": _not_in_ri(grid, labels.example_target),
                    "targets": labels.targets,
                    "datasets": labels.datasets,
                },
            )
        }
    )


def _not_in_ri(grid: Grid, target: str | None) -> dict[str, str]:
    """Why datasets don't count in a target's RI (change of accuracy): {"noto_blur": "variant"}."""
    source_groups = leak_free_groups(grid) or {}
    reasons = {}
    for name, dataset in grid.datasets.items():
        if name not in grid.ood:
            reasons[name] = "variant" if dataset.role == "ood" else "in distribution"
    if target in source_groups:
        for name in grid.ood:
            if source_groups.get(name) == source_groups[target]:
                reasons[name] = "shared images"
    return reasons

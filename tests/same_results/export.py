"""Run a few small grids in a project folder, and write their results in neutral form.

    python -m same_results.export PROJECT FOLDER [--grids NAME ...]

Where a change renames paths, columns or commands, this file follows it, so that names in the
neutral form stay the same.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import rib
from same_results import form
from tiny.models import clip
from tiny.projects import family

# Columns of tables that a second run of the same commit gives other numbers: times and sizes.
MEASURED = {"cost": ["finetune", "merge", "evaluate", "seconds", "megabytes", "memory"]}
UNDERFITTED = ("underfitted", "unfinished")  # today's and the neutral form's name
MINE = "mine"  # catalogue folder of the family `tiny`
# Methods whose runs have several networks: their rows are compared, not their tensors.
SEVERAL_NETWORKS = ("wise_ft_curve", "output_ensemble", "dawin")


@dataclass(frozen=True)
class SmallGrid:
    """A grid that is run and exported.

    Attributes:
        name: in the neutral form.
        models: names of its models.
        choices: other choices, as after snakemake --config.
        image_size: side of the images in pixels; None for that of the family.
    """

    name: str
    family: str
    protocol: str
    models: tuple[str, ...]
    choices: tuple[str, ...]
    image_size: int | None = None


GRIDS = (
    SmallGrid(
        name="fashion",
        family="fashion",
        protocol="paper",
        models=("fashion_cnn_1k", "fashion_cnn_50k"),
        choices=("targets=[fashion_edges,fashion_background]", "training={epochs: 10}"),
    ),
    SmallGrid(
        name="held_out",
        family="fashion",
        protocol="held_out",
        models=("fashion_cnn_50k",),
        choices=(
            "methods=[ft,wise_ft,wise_ft_selected,greedy_soup]",
            "targets=[fashion_edges]",
            "select=target",
            "training={epochs: 2}",
        ),
    ),
    SmallGrid(
        name="emoji",
        family="emoji",
        protocol="paper",
        models=("efficientnet_lite0",),
        choices=(
            "methods=[ft,linear_probe]",
            "targets=[fluent_high_contrast]",
            "training={epochs: 2}",
        ),
    ),
    SmallGrid(
        name="tiny",
        family="tiny",
        protocol="paper",
        models=("tiny_cnn",),
        choices=(
            "methods=all",
            "targets=[red,green]",
            "seeds=[0,1]",
            "method_settings={ft: {lr: [0.0005, 0.001]}}",
        ),
    ),
    SmallGrid(
        name="tiny_vit",
        family="tiny",
        protocol="paper",
        models=("tiny_vit",),
        choices=("methods=[ft,lora,lora_released,visual_prompt]", "targets=[red]"),
    ),
    SmallGrid(
        name="tiny_texts",
        family="tiny",
        protocol="paper",
        models=("clip",),
        choices=("methods=[flyp,lipsum_ft,carot]", "targets=[red]"),
        image_size=32,
    ),
)


def export(project: Path, folder: Path, grids: Sequence[SmallGrid] = GRIDS) -> None:
    """Run grids in a project folder, and write each in neutral form as soon as it is done."""
    torch.set_num_threads(1)  # as in jobs: merges are computed on loading, and depend on it
    library = Path(rib.__file__)
    if not library.is_relative_to(project):
        raise SystemExit(f"rib is imported from {library}, which is not of {project}.")
    mine = project / MINE
    if not mine.exists():
        family.make(mine)
        clip.add(mine)
    for grid in grids:
        run(project, grid)
        form.write_rows(folder / grid.name, rows_of(project, grid))
        form.write_tables(folder / grid.name, tables_of(project, grid))
        for name, network in networks_of(project, grid):
            form.write_network(folder / grid.name, name, network.state_dict())


def run(project: Path, grid: SmallGrid) -> None:
    """Make the tables of a grid."""
    config = [
        f"family={grid.family}",
        f"protocol={grid.protocol}",
        f"models=[{','.join(grid.models)}]",
        *grid.choices,
    ]
    config += [f"{key}={value}" for key, value in settings_of(project, grid).items()]
    command = [sys.executable, "-m", "snakemake", "tables", "--cores", "all", "--config", *config]
    environment = {**os.environ, "PYTHONPATH": str(project / "workflow/lib")}
    subprocess.run(command, cwd=project, env=environment, check=True)


def settings_of(project: Path, grid: SmallGrid) -> dict[str, str | int]:
    """Keys of config.yaml that the family of a grid needs."""
    settings: dict[str, str | int] = {}
    if grid.family == "tiny":
        settings["catalog"] = str(project / MINE)
    if grid.image_size is not None:
        settings["image_size"] = grid.image_size
    return settings


def files_of_rows(project: Path, grid: SmallGrid) -> list[Path]:
    """Files of the rows of a grid's runs: .../{model}/{target}/{entry}/{size}/{seed}/{file}."""
    stages = project / f"results/{grid.family}/{grid.protocol}"
    files = []
    for stage in ("evaluate", "evaluate_over_targets"):
        for model in grid.models:
            files += sorted((stages / stage / model).glob("*/*/*/*/*.parquet"))
    return files


def rows_of(project: Path, grid: SmallGrid) -> pd.DataFrame:
    """Rows of all runs of a grid, in neutral form."""
    tables = []
    for path in files_of_rows(project, grid):
        rows = pd.read_parquet(path)
        for column in ("model", "target", "method", "size", "dataset"):
            rows[column] = rows[column].astype(str)
        identity = ["model", "target", "method", "size", "seed", "alpha", "dataset"]
        for key, group in rows.groupby(identity, dropna=False):
            model, target, method, size, seed, alpha, dataset = key
            name = form.run_name(
                model=model,
                target=target,
                method=method,
                size=size,
                seed=seed,
                alpha=None if pd.isna(alpha) else alpha,
            )
            tables.append(_neutral_rows(project, grid, name, dataset, group))
    return pd.concat(tables, ignore_index=True)


def _neutral_rows(
    project: Path, grid: SmallGrid, run_name: str, dataset: str, rows: pd.DataFrame
) -> pd.DataFrame:
    prepared = next((project / f"results/{grid.family}/prepare/{dataset}").iterdir())
    index = pd.read_parquet(prepared / "index.parquet")
    keys = pd.Series(json.loads((prepared / "classes.json").read_text())["keys"])
    images = index.set_index("row").loc[rows["row"]]
    return pd.DataFrame(
        {
            "run": run_name,
            "dataset": dataset,
            "image": images["image_id"].to_numpy(),
            "answer": keys[images["label"]].to_numpy(),
            "prediction": keys[rows["prediction"]].to_numpy(),
            "confidence": rows["confidence"].to_numpy("float32"),
        }
    )


def tables_of(project: Path, grid: SmallGrid) -> dict[str, pd.DataFrame]:
    """Tables of a grid by name, with the text of each cell, without times and sizes."""
    name = grid.family if grid.protocol == "paper" else f"{grid.family}_{grid.protocol}"
    folder = project / f"reports/{name}"
    tables = {}
    for path in sorted(folder.glob("tables/*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = table.drop(columns=MEASURED.get(path.stem, []))
        # In the neutral form a column has the name that it had first.
        tables[path.stem] = table.rename(columns=lambda name: name.replace(*UNDERFITTED))
    return tables


def networks_of(project: Path, grid: SmallGrid) -> Iterator[tuple[str, nn.Module]]:
    """Each run of a grid that has one network, by name, with that network."""
    runs = set()
    for path in files_of_rows(project, grid):
        methods = pd.read_parquet(path, columns=["method"])["method"].unique()
        model, target, _, size, seed = path.parent.parts[-5:]
        runs.update((model, target, method, size, seed) for method in methods)
    for model, target, method, size, seed in sorted(runs):
        if method.startswith(SEVERAL_NETWORKS):
            continue
        name = f"{model}/{target}/{method}/{size}/{seed}"
        run_in_project = f"{grid.family}/{grid.protocol}/{name}"
        yield name, rib.load_network(project, run_in_project, catalog=MINE)


def main() -> None:
    """Export the results of a project folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("folder", type=Path)
    by_name = {grid.name: grid for grid in GRIDS}
    parser.add_argument("--grids", nargs="+", choices=by_name, default=list(by_name))
    arguments = parser.parse_args()
    grids = [by_name[name] for name in arguments.grids]
    export(arguments.project.resolve(), arguments.folder.resolve(), grids)


if __name__ == "__main__":
    main()

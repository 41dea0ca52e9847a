"""Shared by all scripts: translate Snakemake's objects to arguments of a stage's function."""

import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.base.settings import Settings, from_params
from rib.config.run import NO_TARGET, Run
from rib.jobs.parent_run import end_with_parent
from rib.jobs.script import named_inputs, run  # noqa: F401

end_with_parent()


def arguments(function, snakemake, out, **given) -> dict:
    """Arguments of a stage's function, by name.

    Each parameter is looked up by name in this order: `given`, settings (params.cfg), outputs,
    `run` (made from the wildcards), wildcards, inputs (a path or a list of paths). `x_folder` is
    the folder of input `x`, `outputs` a dict of all outputs, and `rescue` a file next to the log.
    See `_converted` for settings.
    """
    w, known = snakemake.wildcards, {}
    for name, value in named_inputs(snakemake).items():
        known[name] = Path(value) if isinstance(value, str) else [Path(path) for path in value]
        known[f"{name}_folder"] = Path(value).parent if isinstance(value, str) else None
    known |= dict(w.items())
    if "seed" in known:
        known["run"] = Run(w.model, w.target, w.method, w.size, int(w.seed))
    known["rescue"] = Path(snakemake.log[0]).with_suffix(".last_good.safetensors")
    known |= {**out, "outputs": out, **snakemake.params.cfg, **given}
    return {
        name: _converted(known[name], parameter.annotation)
        for name, parameter in inspect.signature(function).parameters.items()
        if name in known
    }


def _converted(value, annotation):
    """Convert a dict to settings or a dataclass if the parameter is annotated as one."""
    if not isinstance(value, dict):
        return value
    for kind in (annotation, *get_args(annotation)):
        if inspect.isclass(kind) and issubclass(kind, Settings):
            return from_params(kind, value)
        if is_dataclass(kind):
            return kind(**value)
    return value


def dataset_files(snakemake, role):
    """Files of the dataset whose manifest is the input `role`; None if that is empty.

    Its proxy and split may be empty, too.
    """
    from rib.data.view import DatasetFiles

    w = snakemake.wildcards
    manifest, proxy, split = (
        snakemake.input.get(f"{role}{part}") for part in ("", "_proxy", "_split")
    )
    if not manifest:
        return None
    name = w.get("dataset", w.get("target"))
    if role == "reference" or name == NO_TARGET:  # what the pretrained model has seen
        name = "reference"
    proxy, split = Path(proxy).parent if proxy else None, Path(split) if split else None
    return DatasetFiles(name, Path(manifest).parent, proxy, split, workers=snakemake.threads)


def dataset_group(snakemake, folders) -> list:
    """Datasets of a job, with the proxy for those that exclude it, and splits."""
    from rib.data.view import DatasetFiles

    cfg, files = snakemake.params.cfg, snakemake.input
    proxies = {name: Path(files.proxy).parent for name in cfg["excludes_proxy"]}
    splits = dict(zip(cfg["split"], map(Path, files.splits), strict=True))
    return [
        DatasetFiles(name, folder, proxies.get(name), splits.get(name), workers=snakemake.threads)
        for name, folder in folders.items()
    ]


def checkpoints(snakemake) -> dict[str, Path]:
    """Files of the checkpoints that make up a run's weights, by method."""
    return dict(
        zip(snakemake.params.cfg["parents"], map(Path, snakemake.input.checkpoints), strict=True)
    )


def run_weights(snakemake) -> dict:
    """The states of a run that are evaluated, and the checkpoints that make their weights."""
    from rib.evaluation.recipes import State, run_states

    cfg, recipe = snakemake.params.cfg, snakemake.input.recipe
    fisher, stated = list(map(Path, snakemake.input.fisher)), cfg.get("states")
    states = run_states(
        snakemake.wildcards.method, Path(recipe) if recipe else None, cfg.get("algorithm"), fisher
    )
    states = [State(**state) for state in stated] if stated else states
    return {"states": states, "checkpoints": checkpoints(snakemake)}

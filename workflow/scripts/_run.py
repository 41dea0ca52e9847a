"""Shared by all scripts: translate Snakemake's objects to arguments of a stage's function."""

import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.base.settings import Settings, from_params
from rib.config.run import Run
from rib.jobs.parent_run import end_with_parent
from rib.jobs.script import named_inputs, run, show_user_errors_as_sentences  # noqa: F401

show_user_errors_as_sentences()
end_with_parent()


def arguments(function, snakemake, out, **given) -> dict:
    """Arguments of a stage's function, by name.

    Each parameter is looked up by name in this order: `given`, settings (params.cfg), outputs,
    `run` (made from the wildcards), wildcards, inputs (a path or a list of paths). `x_folder` is
    the folder of input `x`, and `outputs` a dict of all outputs.
    See `_converted` for settings.
    """
    w, known = snakemake.wildcards, {}
    for name, value in named_inputs(snakemake).items():
        known[name] = Path(value) if isinstance(value, str) else [Path(path) for path in value]
        known[f"{name}_folder"] = Path(value).parent if isinstance(value, str) else None
    known |= dict(w.items())
    if "seed" in known:
        known["run"] = Run(w.model, w.target, w.method, w.size, int(w.seed))
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


def dataset_group(snakemake, folders) -> list:
    """Datasets of a job, with the proxy for those that exclude it, and splits."""
    from rib.data.view import DatasetFiles

    cfg, files = snakemake.params.cfg, snakemake.input
    proxies = {name: Path(files.proxy).parent for name in cfg["excludes_proxy"]}
    splits = dict(zip(cfg["split"], map(Path, files.splits), strict=True))
    return [
        DatasetFiles(
            name, folder, proxies.get(name), splits.get(name), decode_workers=snakemake.threads
        )
        for name, folder in folders.items()
    ]

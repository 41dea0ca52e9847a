"""The one place where a script meets Snakemake: its object unpacked into the library's job."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.job import job
from rib.owner import end_with_owner
from rib.warm import delegate

end_with_owner()


def warm_start(libraries: str = "networks") -> None:
    """Go on in a process that has these libraries (see rib.warm.PRELOADED) imported already, where this run keeps one."""
    delegate(sys.argv[0], libraries)


def run(snakemake, stage: str, resumes: str | None = None):
    """Context manager of a job (see rib.job.job); yields where to write each output."""
    return job(
        stage=stage,
        rule=snakemake.rule,
        name="/".join(snakemake.wildcards),
        cfg=snakemake.params.cfg,
        inputs=named_inputs(snakemake),
        outputs=dict(snakemake.output.items()),
        log_file=snakemake.log[0],
        resumes=resumes,
    )


def named_inputs(snakemake) -> dict[str, str | list[str]]:
    """A job's inputs by name: a path, or a list where the rule gives one."""
    return {
        name: str(value) if isinstance(value, str) else [str(path) for path in value]
        for name, value in snakemake.input.items()
    }


def network_and_images(snakemake) -> dict:
    """Arguments of a job that passes one dataset's images through one run's network."""
    from rib.merge import run_states

    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    return {
        "model_folder": Path(files.model).parent,
        "states": run_states(w.method, files.recipe),
        "checkpoints": dict(zip(cfg["parents"], files.checkpoints, strict=True)),
        "dataset_folder": Path(files.dataset).parent,
        "apart": Path(files.apart).parent if files.apart else None,
        "split": Path(files.split) if files.split else None,
        **{key: cfg[key] for key in ("images", "batch_size", "compute")},
    }


def training(snakemake) -> dict:
    """Arguments of a job that trains one model on one target with one method."""
    cfg, files, w = snakemake.params.cfg, snakemake.input, snakemake.wildcards
    return {
        "model_folder": Path(files.model).parent,
        "target_folder": Path(files.target).parent,
        "reference_folder": Path(files.reference).parent if files.reference else None,
        "apart": Path(files.apart).parent if files.apart else None,
        "split": Path(files.split) if files.split else None,
        "reference_split": Path(files.reference_split) if files.reference_split else None,
        "start": dict(zip(cfg["parents"], map(Path, files.start_weights), strict=True)),
        "what": {key: w[key] for key in ("model", "target", "method")},
        "size": w.size,
        "seed": int(w.seed),
        **{key: cfg[key] for key in ("mechanism", "settings", "training", "images", "compute")},
        "rescue": Path(snakemake.log[0]).with_suffix(".last_good.safetensors"),
    }

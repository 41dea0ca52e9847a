# Checkpoints of fine-tuned weights that were trained elsewhere, which the tables of config's `external` name.

EXPORTED = ["model.safetensors", "open_clip_model.safetensors", "classification_head.safetensors"]  # in folders


def weights_settings(w):
    """Settings of the algorithm, without hashes of files, which would take too long at every dry-run."""
    run, entry = RUN_PATH.format(**w), GRID.models[w["model"]]
    path = CATALOG.external[run]["path"]
    files = [file for file in map(path.joinpath, EXPORTED) if file.is_file()] or [path]
    found = {str(Path(local(file.parent), file.name)): file.is_file() and file.stat() for file in files}
    versions = {file: stat and [stat.st_size, stat.st_mtime_ns] for file, stat in found.items()}
    model = {key: getattr(entry, key) for key in ("library", "architecture", "arguments")}
    return {"run": run, "files": versions, "model": model}


for RUN in (vars(run) for run in CHECKPOINT_RUNS if str(run) in CATALOG.external):
    ROW, READY = CATALOG.external[RUN_PATH.format(**RUN)], all(weights_settings(RUN)["files"].values())
    if not READY and not Path(f"{CHECKPOINT}/manifest.json".format(**RUN)).is_file():  # else it was pulled
        raise UserError(f"{ROW['where']}: {ROW['path']} is no file, and no folder with {' or '.join(EXPORTED[:2])}.")


# The files are no inputs: hashing them would take too long, and exports of this project depend on the tables.
use rule finetune as import_checkpoint with:
    output:
        checkpoint=f"{CHECKPOINT}/checkpoint.safetensors",
        manifest=f"{CHECKPOINT}/manifest.json",
        provenance=f"{CHECKPOINT}/provenance.json",
    wildcard_constraints:
        method=of_form("external"),
    params:
        cfg=lambda w: method_settings(
            "finetune", w, settings=weights_settings(w), training=None, view=view_of(w.model), compute=COMPUTE
        ),

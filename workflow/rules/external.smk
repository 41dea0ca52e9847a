# Checkpoints of fine-tuned weights that were trained elsewhere: files, or folders as `snakemake export` writes them, that
# the tables of config's `external` name. A folder has a network, or a model of open_clip and its head.

EXPORTED = ["model.safetensors", "open_clip_model.safetensors", "classification_head.safetensors"]


def weights_settings(w):
    """Settings of the algorithm, without hashes, which would take too long; pulled checkpoints need no files."""
    run, entry = RUN_PATH.format(**w), GRID.models[w.model]
    path, where = (CATALOG.external[run][key] for key in ("path", "where"))
    files = [file for file in map(path.joinpath, EXPORTED) if file.is_file()] or [path]
    if not files[0].is_file() and not Path(f"{CHECKPOINT}/manifest.json".format(**w)).is_file():
        raise UserError(f"{where}: {path} is neither a file nor a folder with {' or '.join(EXPORTED[:2])}; correct it.")
    found = {str(Path(local(file.parent), file.name)): file.is_file() and file.stat() for file in files}
    versions = {file: stat and [stat.st_size, stat.st_mtime_ns] for file, stat in found.items()}
    model = {key: getattr(entry, key) for key in ("library", "architecture", "arguments")}
    return {"run": run, "files": versions, "model": model}


use rule finetune as import_checkpoint with:
    input:
        unpack(training_inputs),
        files=lambda w: ancient(list(weights_settings(w)["files"])),
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

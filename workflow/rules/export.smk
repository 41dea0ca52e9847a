# `snakemake export` writes each fine-tuned run in its library's format, with a model card. It is not part of a full run.

from rib.base.files import in_bytes
from rib.base.progress import print_lines

EXPORT = f"{RUNS}/export/{RUN_PATH}"
REASONS = {
    **dict.fromkeys(CURVES, "it has several states"),
    **dict.fromkeys(ENSEMBLES, "it has several networks"),
    **{
        name: "networks have no padding prompt"
        for name, m in GRID.methods.items()
        if m.algorithm == "visual_prompt"
    },
    **dict.fromkeys(GRID.over_targets, "model cards are of one target"),
}
NOT_EXPORTED = {name: f"method '{name}' can't be exported: {why}" for name, why in REASONS.items()}


def export_inputs(w):
    """Inputs of an export job, by name; a UserError if runs of the method can't be exported."""
    if w.method in NOT_EXPORTED:
        raise UserError(f"{NOT_EXPORTED[w.method]}; choose another method.")
    files, entry = network_inputs(w), GRID.models[w.model]
    made = [path for path in (files["model"], *files["manifests"], files["recipe"]) if path]
    return {
        **files,
        "archive": ancient(archive_files(entry)[0]) if entry.library == "open_clip" else [],
        "tables": [TABLES["accuracy"], TABLES["ri"]],
        "records": [re.sub(r"\w+\.json$", "provenance.json", path) for path in made],
        "templates": [
            local(REPORTING / name) for name in ("model_card.md.jinja", "citation.jinja")
        ],
        "citation": local(WORKFLOW.parent / "CITATION.cff"),
    }


def export_settings(w, **settings_of_export):
    """Settings of a job that exports a run."""
    source = WORKFLOW / "lib/rib/evaluation/export.py"
    algorithm = [ON_LOADING[w.method]] if w.method in ON_LOADING else []
    return {
        "function": "rib.evaluation.export:export_run",
        "view": to_params(VIEW_OF[w.model]),
        "batch_size": BATCH_SIZE,
        "compute": to_params(COMPUTE),
        "parents": PARENTS[w.method],
        "algorithm": algorithm_on_loading(w.method),
        **settings_of_export,
        "code": digest("run_network", source, *algorithm),
    }


rule export_run:
    input:
        unpack(export_inputs),
    output:
        **job_files(
            EXPORT,
            inside=True,
            weights="model.safetensors",
            config="config.json",
            card="README.md",
        ),
    log:
        f"{RUN_LOGS}/export/{RUN_PATH}.log",
    wildcard_constraints:
        model="|".join(
            re.escape(name) for name, model in GRID.models.items() if model.library == "timm"
        )
        or "(?!)",
        method=of_form("finetune", "external", *MERGES),
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: THREADS
    resources:
        gpu=0,
        mem_mb=16000,
        runtime=60,
    params:
        cfg=lambda w: export_settings(
            w,
            published=GRID.models[w.model].weights,
            label_names=(
                list(CATALOG.family_label_space(FAMILY).names)
                if GRID.family.classes["format"] == "own"
                else None
            ),
            about={
                **ABOUT,
                "config": {
                    key: ABOUT["config"][key]
                    for key in ("method_settings", "reference", "statistics")
                },
                "training": {
                    parent["method"]: GRID.training(parent["method"])
                    for parent in map(parent_of, PARENTS[w.method])
                    if GRID.methods[parent["method"]].trains
                },
            },
        ),
    script:
        str(WORKFLOW / "scripts/run_network.py")


use rule export_run as export_open_clip_run with:
    output:
        **job_files(
            EXPORT,
            inside=True,
            weights="open_clip_model.safetensors",
            config="open_clip_config.json",
            head="classification_head.safetensors",
            card="README.md",
        ),
    wildcard_constraints:
        model="|".join(
            re.escape(name) for name, model in GRID.models.items() if model.library == "open_clip"
        )
        or "(?!)",
        method=of_form("finetune", "external", *MERGES),


def exported(w):
    """Model cards of the runs that can be exported; says how many there are, how large, and what is left out."""
    runs = [run for run in GRID.runs() if run.method not in (PRETRAINED, *NOT_EXPORTED)]
    if not runs:
        raise UserError(
            f"{'; '.join(NOT_EXPORTED.values()) or 'no method is chosen'}; choose another method."
        )
    models = [GRID.models[run.model] for run in runs]
    size = sum(
        max(4 * (model.parameters or 0), (model.source or {}).get("size", 0)) for model in models
    )
    plan = f"exporting {len(runs)} runs, {f'about {in_bytes(size)}' if size else 'of unknown size'}"
    print_lines(*NOT_EXPORTED.values(), plan, file=sys.stderr)
    CONSOLE.last_line = f"Made: {len(runs)} exported runs in {RUNS}/export/<model>/<target>/<method>/<size>/<seed>/."
    return [f"{EXPORT}/README.md".format(**vars(run)) for run in runs]


rule export:
    input:
        exported,

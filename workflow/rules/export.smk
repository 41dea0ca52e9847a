# `snakemake export` writes each fine-tuned run in its library's format, with a model card. A full
# run does not include it.

from rib.base.files import in_bytes
from rib.base.progress import print_lines
from rib.base.params import replaced
from rib.schema.fields import stated
from rib.report.report_settings import ExportSettings
from rib.statistics.statistics_settings import grid_table_settings, metrics_of

REASONS = {
    **dict.fromkeys(LABELS.curves, "it has several states"),
    **dict.fromkeys(ENSEMBLES, "it has several networks"),
    **{
        name: "networks have no padding prompt"
        for name, method in GRID.methods.items()
        if method.padding_prompt
    },
    **dict.fromkeys(GRID.over_targets, "model cards are of one target"),
}
NOT_EXPORTED = {name: f"method '{name}' can't be exported: {why}" for name, why in REASONS.items()}


def export_inputs(wildcards):
    """Inputs of an export job, by name; a UserError if the method can't be exported."""
    if wildcards.method in NOT_EXPORTED:
        raise UserError(f"{NOT_EXPORTED[wildcards.method]}; choose another method.")
    if wildcards.target in GRID.id_targets:
        raise UserError(
            f"runs on '{wildcards.target}', a target in distribution, can't be exported; choose "
            "another target."
        )
    network = network_inputs(wildcards)
    runs = [PATHS.pretrained_runs[wildcards.model], Run.from_wildcards(wildcards)]
    model = GRID.models[wildcards.model]
    files_of_weights = [network["model"], *network["checkpoint_manifests"]]
    if network["selection"]:
        files_of_weights.append(network["selection"])
    return {
        **network,
        "archive": ancient(PATHS.archives(model)[0]) if model.library == "open_clip" else [],
        **inputs_of_metrics(runs),
        "records": [re.sub(r"\w+\.json$", "provenance.json", path) for path in files_of_weights],
        "templates": [
            local(REPORTING / name) for name in ("model_card.md.jinja", "citation.jinja")
        ],
        "citation": local(WORKFLOW.parent / "CITATION.cff"),
    }


def trainings_of_parents(wildcards):
    """How the parents of a run are trained, by method.

    If parents differ only in their targets, the training on the last target remains.
    """
    training = {}
    for key in PATHS.parents[wildcards.method]:
        parent = {**wildcards, **parent_of(key)}
        name = parent["method"]
        if GRID.methods[name].trains:
            training[name] = GRID.training_of(name, parent["target"], parent["size"])
    return training


def export_settings(wildcards):
    method = GRID.methods[wildcards.method]
    algorithms = [CATALOG.algorithm_file(method.algorithm)] if method.form in MERGES else []
    settings = ExportSettings(
        **network_settings(wildcards),
        published=stated(GRID.models[wildcards.model].weights),
        label_names=CLASS_NAMES,
        metrics=replaced(
            grid_table_settings(GRID.of_ood_targets, ""), methods=(PRETRAINED, wildcards.method)
        ),
        tables=tuple(metrics_of(GRID.of_ood_targets)),
        family=ABOUT.family,
        ood=ABOUT.ood,
        datasets=ABOUT.datasets,
        read=ABOUT.read,
        models=ABOUT.models,
        methods=ABOUT.methods,
        method_settings=ABOUT.config["method_settings"],
        reference=ABOUT.config["reference"],
        confidence=LABELS.confidence,
        training=trainings_of_parents(wildcards),
        code=digest("export_run", *algorithms),
    )
    return to_params(settings)


rule export_run:
    input:
        unpack(export_inputs),
    output:
        weights="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/model.safetensors",
        config="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/config.json",
        card="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/README.md",
        manifest="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    log:
        "logs/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}.log",
    wildcard_constraints:
        model="|".join(
            re.escape(name) for name, model in GRID.models.items() if model.library == "timm"
        )
        or "(?!)",
        method=of_form("finetune", "external", *MERGES),
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE.threads_per_job
    resources:
        gpu=0,
        mem_mb=16000,
        runtime=time_limit(60),
    params:
        cfg=export_settings,
    script:
        "../scripts/export_run.py"


# The same for models of open_clip, whose format has other files.
use rule export_run as export_open_clip_run with:
    output:
        weights="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/open_clip_model.safetensors",
        config="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/open_clip_config.json",
        head="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/classification_head.safetensors",
        card="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/README.md",
        manifest="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/manifest.json",
        provenance="results/{family}/{protocol}/export/{model}/{target}/{method}/{size}/{seed}/provenance.json",
    wildcard_constraints:
        model="|".join(
            re.escape(name) for name, model in GRID.models.items() if model.library == "open_clip"
        )
        or "(?!)",
        method=of_form("finetune", "external", *MERGES),


def exported(wildcards):
    """Model cards of all runs that can be exported; a UserError if there are none.

    Prints their number and size, and the methods that are left out.
    """
    runs_on_targets = GRID.of_ood_targets.runs()
    runs = [run for run in runs_on_targets if run.method not in (PRETRAINED, *NOT_EXPORTED)]
    if not runs:
        reasons = (
            "; ".join(NOT_EXPORTED.values())
            or "no method is chosen, or no target that is out of distribution"
        )
        raise UserError(f"{reasons}; choose another method.")
    total_size = sum(size_of_export(GRID.models[run.model]) for run in runs)
    size = f"about {in_bytes(total_size)}" if total_size else "of unknown size"
    print_lines(*NOT_EXPORTED.values(), f"exporting {len(runs)} runs, {size}", file=sys.stderr)
    return [f"{PATHS.stage('export')}/{run}/README.md" for run in runs]


def size_of_export(model):
    """Bytes of an exported run: 4 per parameter, or the archive if that is larger; 0 if unknown."""
    size_of_weights = 4 * (model.parameters or 0)
    size_of_archive = model.archives[0].get("size", 0) if model.source else 0
    return max(size_of_weights, size_of_archive)


rule export:
    input:
        exported,

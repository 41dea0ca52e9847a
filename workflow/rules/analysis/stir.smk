# Shared invariances of fine-tuned and pretrained networks: STIR, by representation inversion.

# Uses COMPARED and network_inputs of features.smk, TABLES of metrics.smk and COMPARED_SETTINGS of
# features.smk.

from rib.analyses.stir.settings import StirSettings
from rib.evaluation.settings import InversionJobSettings, InversionSettings

STIR = f"{METRICS}/tables/stir.csv"
INVERTED = f"{RUNS}/inversions/{RUN_PATH}/{{dataset}}"
CROSSED = f"{RUNS}/stir/{RUN_PATH}/{{dataset}}"
# Each run is compared on its target.
CROSSED_RUNS = [{**vars(run), "dataset": run.target} for run in COMPARED]
INVERSION = from_params(InversionSettings, CONFIG["stir"])

REGISTRY.figure(
    "stir", analysis="stir", question="why", inputs={"stir": STIR}, settings=COMPARED_SETTINGS
)
REGISTRY.analysis("stir", tables={"stir": STIR}, figures=["stir"], optional=True)


def inversion_settings(script, wildcards):
    """Settings of a job of a script that inverts representations, or reads inversions."""
    settings = InversionJobSettings(
        **network_settings(wildcards),
        inversion=INVERSION,
        code=digest_with_merge(script, wildcards.method),
    )
    return to_params(settings)


rule invert_representation:
    input:
        unpack(network_inputs),
    output:
        inverted="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        index="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.index.parquet",
        manifest="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/inversions/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=f"{PRETRAINED}|{ONE_STATE}",
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: attempt
        * memory_of(
            [wildcards.dataset], MEMORY.gradients_on_host(wildcards.model, EVALUATION_BATCH_SIZE)
        ),
        runtime=720,
    params:
        cfg=lambda wildcards: inversion_settings("invert_representation", wildcards),
    script:
        str(WORKFLOW / "scripts/invert_representation.py")


def inversion_of_pretrained(ending, wildcards):
    """A file of the inversion of the pretrained model's representation of a job's dataset.

    It is that of the job, but of the run of the pretrained model.
    """
    wildcards_of_pretrained = {**wildcards, **vars(PRETRAINED_RUNS[wildcards.model])}
    return f"{INVERTED}.{ending}".format(**wildcards_of_pretrained)


def inverted_images_of_pretrained(wildcards):
    """Images of a job's dataset that the pretrained model represents as it does the originals."""
    return ancient(inversion_of_pretrained("safetensors", wildcards))


rule cross_inversions:
    input:
        unpack(network_inputs),
        before=lambda wildcards: inversion_of_pretrained("manifest.json", wildcards),
        inverted_before=inverted_images_of_pretrained,
        after=f"{INVERTED}.manifest.json",
        inverted_after=ancient(f"{INVERTED}.safetensors"),
    output:
        features="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.safetensors",
        manifest="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.manifest.json",
        provenance="results/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.provenance.json",
    log:
        "logs/{family}/{protocol}/stir/{model}/{target}/{method}/{size}/{seed}/{dataset}.log",
    wildcard_constraints:
        method=ONE_STATE,
    conda:
        str(WORKFLOW.parent / "envs/torch.yaml")
    threads: lambda wildcards: threads_for([wildcards.dataset])
    resources:
        gpu=GPU,
        mem_mb=lambda wildcards, attempt: memory_of_evaluation(
            wildcards, [wildcards.dataset], attempt
        ),
        runtime=MINUTES_OF_FEATURES,
    params:
        cfg=lambda wildcards: inversion_settings("cross_inversions", wildcards),
    script:
        str(WORKFLOW / "scripts/cross_inversions.py")


def stir_settings(wildcards):
    """Settings of the job that computes STIR."""
    settings = StirSettings(
        layer=INVERSION.layer,
        steps=INVERSION.steps,
        confidence=CONFIDENCE,
        conditions=CONDITIONS,
        code=digest("compute_stir"),
    )
    return to_params(settings)


rule compute_stir:
    input:
        manifests=[f"{CROSSED}.manifest.json".format(**run) for run in CROSSED_RUNS],
        features=ancient([f"{CROSSED}.safetensors".format(**run) for run in CROSSED_RUNS]),
        indexes=ancient([f"{INVERTED}.index.parquet".format(**run) for run in CROSSED_RUNS]),
        fit=TABLES["fit"],
    output:
        **table_files("stir", stir=STIR),
    log:
        f"{LOGS}/stir.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        cfg=stir_settings,
    script:
        "../../scripts/compute_stir.py"

# Store the text tower of each open_clip model on which a method trains with texts, and the tokens
# of these texts.

from rib.models.settings import TextSettings


def text_inputs(wildcards):
    """Inputs of a job that trains a run with texts, by name; none for other runs."""
    if GRID.methods[wildcards.method].text == "no":
        return {}
    files = [PATHS.text(f"{name}.safetensors", wildcards.model) for name in ("tower", "tokens")]
    return {
        "text": PATHS.text("manifest.json", wildcards.model),
        "text_files": ancient(files),
    }


def text_settings(wildcards):
    """Settings of a job that stores a text tower."""
    facts = GRID.conversion(wildcards.model)
    settings = TextSettings(
        entry=facts["entry"], class_names=facts["class_names"], code=digest("store_text")
    )
    return to_params(settings)


rule store_text:
    input:
        manifests=lambda wildcards: [
            f"{file}.manifest.json" for file in archive_files(CATALOG.models[wildcards.model])
        ],
        archives=lambda wildcards: ancient(archive_files(CATALOG.models[wildcards.model])),
    output:
        tower="results/{family}/text/{model}/tower.safetensors",
        tokens="results/{family}/text/{model}/tokens.safetensors",
        manifest="results/{family}/text/{model}/manifest.json",
        provenance="results/{family}/text/{model}/provenance.json",
    log:
        "logs/{family}/text/{model}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, PATHS.models_with_texts())) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=0,
        mem_mb=MEGABYTES_OF_CONVERSION,
        runtime=120,
    params:
        cfg=text_settings,
    script:
        "../scripts/store_text.py"

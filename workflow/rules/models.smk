# Convert each pretrained model to safetensors with its library's parameter names and a head for the
# family's classes: the published head, one made from class names, or one fitted on the family's
# reference dataset.

from rib.base.params import replaced
from rib.grid.model_facts import model_facts
from rib.models.model_settings import ConversionSettings, TextSettings

MEGABYTES_OF_CONVERSION = 8000
MEGABYTES_OF_FITTING_ON_ENCODED = 32000  # fitting a head decodes images when they are used


def has_fitted_head(model):
    return GRID.head(model) == "fitted"


def fitted_on(wildcards):
    """Manifest of the dataset on which a head is fitted; an empty list for other heads."""
    if not has_fitted_head(wildcards.model):
        return []
    return PATHS.prepared(
        "manifest.json", GRID.reference.dataset.name, PATHS.geometry_of(wildcards.model)
    )


def megabytes_of_conversion(wildcards):
    if has_fitted_head(wildcards.model) and GRID.reference.dataset.storage == "encoded":
        return MEGABYTES_OF_FITTING_ON_ENCODED
    return MEGABYTES_OF_CONVERSION


def class_names_for_text(model):
    """Class names for a head made by a text tower; None for ImageNet's classes and other heads."""
    return CLASS_NAMES if GRID.head(model) == "zero_shot" else None


def conversion_settings(wildcards):
    view = None
    compute = replaced(COMPUTE, expects_gpu=False)  # the job uses no GPU
    if has_fitted_head(wildcards.model):
        view = view_of(wildcards.model, GRID.reference.dataset.name)
        compute = COMPUTE
    settings = ConversionSettings(
        entry=model_facts(GRID, wildcards.model),
        head=GRID.head(wildcards.model),
        num_classes=CATALOG.family_label_space(FAMILY).num_classes,
        class_names=class_names_for_text(wildcards.model),
        view=view,
        compute=compute,
        code=digest("convert_model"),
    )
    return to_params(settings)


def threads_of_conversion(wildcards):
    """Fitting a head reads the proxy's images; other conversions need one thread."""
    if has_fitted_head(wildcards.model):
        return threads_for([GRID.reference.dataset.name])
    return 1


rule convert_model:
    input:
        manifests=lambda wildcards: [
            f"{file}.manifest.json" for file in PATHS.archives(CATALOG.models[wildcards.model])
        ],
        archives=lambda wildcards: ancient(PATHS.archives(CATALOG.models[wildcards.model])),
        reference=fitted_on,
    output:
        weights="results/{family}/models/{model}/weights.safetensors",
        description="results/{family}/models/{model}/model.json",
        manifest="results/{family}/models/{model}/manifest.json",
        provenance="results/{family}/models/{model}/provenance.json",
    log:
        "logs/{family}/models/{model}.log",
    wildcard_constraints:
        model=any_of(name for name, model in CATALOG.models.items() if not model.is_trained_here),
    conda:
        "../../envs/torch.yaml"
    threads: threads_of_conversion
    resources:
        gpu=lambda wildcards: GPU if has_fitted_head(wildcards.model) else 0,
        mem_mb=megabytes_of_conversion,
        runtime=time_limit(120),
    params:
        cfg=conversion_settings,
    script:
        "../scripts/convert_model.py"


# Store the text tower of each open_clip model for which a method trains with texts, and the tokens
# of these texts.


def text_settings(wildcards):
    settings = TextSettings(
        entry=model_facts(GRID, wildcards.model),
        class_names=class_names_for_text(wildcards.model),
        code=digest("store_text"),
    )
    return to_params(settings)


rule store_text:
    input:
        manifests=lambda wildcards: [
            f"{file}.manifest.json" for file in PATHS.archives(CATALOG.models[wildcards.model])
        ],
        archives=lambda wildcards: ancient(PATHS.archives(CATALOG.models[wildcards.model])),
    output:
        tower="results/{family}/text/{model}/tower.safetensors",
        tokens="results/{family}/text/{model}/tokens.safetensors",
        manifest="results/{family}/text/{model}/manifest.json",
        provenance="results/{family}/text/{model}/provenance.json",
    log:
        "logs/{family}/text/{model}.log",
    wildcard_constraints:
        model=any_of(PATHS.models_with_texts()),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=0,
        mem_mb=MEGABYTES_OF_CONVERSION,
        runtime=time_limit(120),
    params:
        cfg=text_settings,
    script:
        "../scripts/store_text.py"

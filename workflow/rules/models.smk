# Convert each pretrained model to safetensors with its library's parameter names and a head for the family's classes:
# the published head, one made from class names, or one fitted on the family's reference dataset.

TRAINED_HERE = [name for name, model in CATALOG.models.items() if model.pretrain]


def fitted_on(w):
    """The reference dataset on which a model's head is fitted; empty for other heads."""
    if GRID.head(w.model) != "fitted":
        return []
    return prepared("manifest.json", GRID.reference.name, geometry_of(w.model))


def conversion(w):
    """Settings of a convert_model job, without labels and styles; for a fitted head including its view of the data."""
    entry, head, space = vars(CATALOG.models[w.model]), GRID.head(w.model), CATALOG.family_label_space(FAMILY)
    facts = (
        "name",
        "library",
        "architecture",
        "source",
        "tokenizer",
        "weights",
        "preprocessing",
        "pretraining",
        "licence",
    )
    return {
        "entry": {**{key: entry[key] for key in facts}, "arguments": GRID.arguments(w.model)},
        "head": head,
        "num_classes": space.num_classes,
        "class_names": list(space.names) if head == "zero_shot" and GRID.family.classes["format"] == "own" else None,
        "view": view_of(w.model) if head == "fitted" else None,
        "compute": COMPUTE,
        "code": digest("convert_model"),
    }


rule convert_model:
    input:
        manifests=lambda w: [f"{file}.manifest.json" for file in archive_files(CATALOG.models[w.model])],
        archives=lambda w: ancient(archive_files(CATALOG.models[w.model])),
        reference=fitted_on,
    output:
        weights=f"{MODEL}/weights.safetensors",
        description=f"{MODEL}/model.json",
        manifest=f"{MODEL}/manifest.json",
        provenance=f"{MODEL}/provenance.json",
    log:
        f"{LOGS}/models/{{model}}.log",
    wildcard_constraints:
        model="|".join(re.escape(name) for name in CATALOG.models if name not in TRAINED_HERE) or "(?!)",
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=lambda w: GPU if fitted_on(w) else 0,
        mem_mb=lambda w: 32000 if fitted_on(w) and GRID.reference.dataset.storage == "encoded" else 8000,
        runtime=120,
    params:
        cfg=conversion,
    script:
        "../scripts/convert_model.py"

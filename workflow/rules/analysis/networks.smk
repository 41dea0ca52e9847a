# Compare groups of networks that differ only in what chance decides in pretraining (`group` of a
# model). Part of a run in which a group has several networks.

# Uses COUNTS, TABLES and RI_STATISTICS of metrics.smk, and what figures.smk says of models.

from collections import Counter

from rib.analyses.networks.settings import NetworkGroupSettings

NETWORK_TABLES = {
    name: f"{METRICS}/tables/{name}.csv"
    for name in ("network_differences", "network_groups", "networks")
}
GROUP_OF_NETWORK = {name: model.group for name, model in GRID.models.items() if model.group}
LARGEST_GROUP = max(Counter(GROUP_OF_NETWORK.values()).values(), default=0)

if LARGEST_GROUP > 1 and HAS_FIGURES:
    REGISTRY.figure(
        "networks",
        analysis="networks",
        question="model",
        inputs={name: NETWORK_TABLES[name] for name in ("networks", "network_groups")},
        settings={
            **STYLED_MEANS,
            "models": {name: MODEL_LABELS[name] for name in GROUP_OF_NETWORK},
        },
    )
    REGISTRY.analysis(
        "networks",
        tables={name: NETWORK_TABLES[name] for name in ("network_differences", "network_groups")},
        figures=["networks"],
        files={"Measures of each network": [NETWORK_TABLES["networks"]]},
    )


def network_group_settings(wildcards):
    """Settings of the job that compares groups of networks."""
    stated_images = {name: GRID.models[name].stated_pretraining_images for name in GROUP_OF_NETWORK}
    settings = NetworkGroupSettings(
        ri=RI_STATISTICS,
        groups=GROUP_OF_NETWORK,
        in_distribution=IN_DISTRIBUTION_DATASETS,
        pretraining_images={name: images for name, images in stated_images.items() if images},
        conditions=CONDITIONS,
        code=digest("compare_networks"),
    )
    return to_params(settings)


rule compare_networks:
    input:
        counts=COUNTS,
        fit=TABLES["fit"],
        descriptions=[
            f"{MODEL.format(model=name)}/model.json"
            for name in GROUP_OF_NETWORK
            if GRID.models[name].is_trained_here
        ],
    output:
        **table_files("networks", **NETWORK_TABLES),
    log:
        f"{LOGS}/networks.log",
    conda:
        "../../../envs/report.yaml"
    resources:
        **TABLES_OF_ROWS,
    params:
        cfg=network_group_settings,
    script:
        "../../scripts/compare_networks.py"

# Choose a variant of each sweep (config, select) by what is stored; the rule target needs rows of
# the select splits.
# Uses rows_on_select_splits of evaluate.smk, and COUNTS, INDEXED, RI_STATISTICS, TABLES,
# TABLES_OF_ROWS and table_files of metrics.smk.

from rib.analyses.selection.settings import VariantChoiceSettings

SELECTION = f"{METRICS}/tables/selection.csv"


def runs_on_select_split():
    """Runs that are scored on the select split of their target, to choose among them.

    They are runs of the variants of sweeps, such as `wise_ft-alpha0.5`.
    """
    if CONFIG["select"] != "target" or not GRID.selection:
        return []
    variants = []
    for variants_of_sweep in GRID.selection.variants.values():
        variants.extend(variants_of_sweep)
    return [run for run in SELECTABLE_RUNS if run.method in variants]


RUNS_ON_SELECT_SPLIT = runs_on_select_split()
SELECT_ROWS = rows_on_select_splits(RUNS_ON_SELECT_SPLIT)


def variant_choice_settings(wildcards):
    """Settings of the job that chooses a variant of each sweep."""
    settings = VariantChoiceSettings(
        methods=methods_of(RUNS_ON_SELECT_SPLIT),
        ri=RI_STATISTICS,
        choose_by=GRID.selection.rule,
        variants=GRID.selection.variants,
        groups=GRID.selection.groups,
        conditions=CONDITIONS,
        code=digest("select_variants"),
    )
    return to_params(settings)


if GRID.selection:

    REGISTRY.analysis("selection", tables={"selection": SELECTION})

    rule select_variants:
        input:
            **INDEXED,
            counts=COUNTS,
            fit=TABLES["fit"],
            manifests=beside("manifest", SELECT_ROWS),
            rows=ancient(SELECT_ROWS),
        output:
            **table_files("selection", selection=SELECTION),
        log:
            f"{LOGS}/selection.log",
        conda:
            "../../../envs/report.yaml"
        resources:
            **TABLES_OF_ROWS,
        params:
            cfg=variant_choice_settings,
        script:
            "../../scripts/select_variants.py"

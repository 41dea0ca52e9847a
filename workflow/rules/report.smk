# Write the page of a run, with tables, figures and provenance. Snakemake's own report is made after
# a run (Makefile).


from rib.report.settings import (
    DatasetDescription,
    FamilyDescription,
    GridDescription,
    MethodDescription,
    ModelDescription,
    PageSettings,
    ReadDatasetDescription,
    SweepDescription,
)


report: "../report/workflow.rst"


PAGE = f"{METRICS}/index.html"
PNGS = []
ALL_FIGURES = []
if HAS_FIGURES:
    PNGS = [f"{METRICS}/figures/{name}.png" for name in REGISTRY.chosen_figures()]
    ALL_FIGURES = figure_files(*REGISTRY.chosen_figures())
# Tables of the page besides those that each page has.
MORE_TABLES = {
    name: path
    for name, path in REGISTRY.chosen_tables().items()
    if name not in ("mri", "ri", "accuracy")
}
MORE_FILES = REGISTRY.chosen_files()
PATHS_OF_MORE_FILES = [path for paths in MORE_FILES.values() for path in paths]
# Some are both a table of the page and a file that it links to.
ALL_TABLES = list(dict.fromkeys([*TABLES.values(), *MORE_TABLES.values(), *PATHS_OF_MORE_FILES]))


def files_of_analysis(analysis):
    """Files that an optional analysis adds to a run."""
    files = list(analysis.tables.values())
    for paths in analysis.files.values():
        files.extend(paths)
    if HAS_FIGURES:
        files.extend(figure_files(*analysis.figures))
    return files


# What `snakemake tables`, `snakemake figures` and a plain `snakemake` publish together, so that all
# of it is of one grid.
GRID_FILES = [*ALL_TABLES, COUNTS, *([CELLS] if HAS_FIGURES else []), *ALL_FIGURES, PAGE]
PUBLICATION = copies(GRID_FILES, REPORTS)
PUBLICATIONS = {"publish_grid": (GRID_FILES, REPORTS)}
# `snakemake distances` and the like publish what an optional analysis adds to a run, in a folder of
# its own.
for NAME, ANALYSIS in REGISTRY.analyses.items():
    if ANALYSIS.optional:
        PUBLICATIONS[NAME] = (files_of_analysis(ANALYSIS), f"{REPORTS}/{NAME}")

for NAME, (FILES, FOLDER) in PUBLICATIONS.items():

    rule:
        name:
            NAME
        input:
            files=FILES,
        output:
            **copies(FILES, FOLDER),
        log:
            f"{LOGS}/publish_{NAME}.log",
        localrule: True
        conda:
            "../../envs/report.yaml"
        params:
            cfg=publication_settings(FOLDER),
        script:
            "../scripts/publish.py"


for NAME in ("tables", "figures"):

    rule:
        name:
            NAME
        input:
            PUBLICATION.values(),


def download_records():
    """Records of the downloads of all datasets and models."""
    entries = [*DATASETS_READ, *WHOLE_GRID.models.values()]
    return [f"{file}.provenance.json" for entry in entries for file in archive_files(entry)]


def preparation_records():
    """Records of the preparations of all datasets at all geometries, each once."""
    records = [
        prepared("provenance.json", dataset.name, geometry)
        for geometry in GEOMETRIES
        for dataset in DATASETS_READ
    ]
    return list(dict.fromkeys(records))


def all_fisher_records():
    """Records of all Fisher information, each once."""
    records = []
    for paths in (*FISHER_RECORDS.values(), *SHARED_FISHER_RECORDS.values()):
        records.extend(paths)
    return list(dict.fromkeys(records))


def records_by_stage():
    """Paths of the records of the jobs behind the tables, by stage.

    Stages that some grids lack, such as `split`, are there only if they have a job.
    """
    records = {
        "download": download_records(),
        "prepare": preparation_records(),
    }
    if WHOLE_GRID.split_fractions:
        records["split"] = beside("provenance", SPLITS)
    records["models"] = expand(f"{MODEL}/provenance.json", model=WHOLE_GRID.models)
    if TEXT_MODELS:
        records["text"] = expand(f"{TEXT}/provenance.json", model=TEXT_MODELS)
    if LABEL_VERDICTS:
        records["labels"] = beside("provenance", LABEL_VERDICTS)
    records["finetune"] = [
        f"{CHECKPOINT}/provenance.json".format(**vars(run)) for run in CHECKPOINT_RUNS
    ]
    fisher_records = all_fisher_records()
    if fisher_records:
        records["fisher"] = fisher_records
    selected = [run for run in MERGED_RUNS if GRID.methods[run.method].form == SELECT]
    if selected:
        records["merge"] = [
            f"{RUNS}/merge/{RUN_PATH}/provenance.json".format(**vars(run)) for run in selected
        ]
    records["evaluate"] = beside("provenance", rows_of(WHOLE_GRID.runs()))
    if OVER_TARGETS_ROWS:
        records["evaluate_over_targets"] = beside("provenance", OVER_TARGETS_ROWS)
    if SELECT_ROWS:
        records["select"] = beside("provenance", SELECT_ROWS)
    return records


RECORDS_BY_STAGE = records_by_stage()
# Not inputs of the page, so that it can be made again if only rows and reports were pulled.
UPSTREAM = [path for paths in RECORDS_BY_STAGE.values() for path in paths]
SHOWN_RECORDS = [f"{METRICS}/tables/provenance.json"]
for RULE_NAME, FIGURE_NAMES in FIGURES_OF_RULES.items():
    if set(FIGURE_NAMES).intersection(REGISTRY.chosen_figures()):
        SHOWN_RECORDS.append(plot_record(RULE_NAME))
if PREVIEW:
    SHOWN_RECORDS = []


def dataset_description(dataset):
    """What a page says about an evaluated dataset."""
    return DatasetDescription(label=dataset.label, licence=dataset.licence, origin=dataset.origin)


def read_dataset_description(dataset):
    """What a model card says about a dataset that is read."""
    return ReadDatasetDescription(
        label=dataset.label,
        licence=dataset.licence,
        origin=dataset.origin,
        publishable=dataset.publishable,
        tuning=dataset.tuning,
    )


def model_description(model):
    """What a page says about a pretrained model."""
    return ModelDescription(
        label=model.label,
        architecture=model.architecture,
        pretraining=model.pretraining,
        licence=model.licence,
        record=model.record,
    )


def method_description(method):
    """What a page says about a method."""
    return MethodDescription(
        label=method.label,
        settings=method.settings,
        source=method.source,
        can_fit=method.can_fit,
        reference=method.reference,
    )


def sweep_descriptions():
    """What a page says about each sweep of which a variant is chosen, by method."""
    if not WHOLE_GRID.selection:
        return {}
    return {
        name: SweepDescription(label=CATALOG.methods[name].label, variants=list(variants))
        for name, variants in WHOLE_GRID.selection.variants.items()
    }


# What pages and model cards say about the choices.
ABOUT = GridDescription(
    config=WHOLE_GRID.resolved(),
    config_file={**WHOLE_GRID.as_config(), "catalog": OWN_FOLDERS},
    family=FamilyDescription(
        title=WHOLE_GRID.family.title,
        description=WHOLE_GRID.family.description,
        limits=WHOLE_GRID.family.limits,
    ),
    targets=list(WHOLE_GRID.targets),
    ood=list(WHOLE_GRID.ood),
    sizes=list(WHOLE_GRID.sizes),
    shown_size=WHOLE_GRID.shown_size,
    conditions=list(WHOLE_GRID.conditions()),
    datasets={name: dataset_description(dataset) for name, dataset in WHOLE_GRID.datasets.items()},
    read={dataset.name: read_dataset_description(dataset) for dataset in DATASETS_READ},
    models={name: model_description(model) for name, model in WHOLE_GRID.models.items()},
    methods={name: method_description(method) for name, method in WHOLE_GRID.methods.items()},
    fit_threshold=WHOLE_GRID.family.fit_threshold,
    source_groups=WHOLE_GRID.source_groups(),
    sharing_targets=WHOLE_GRID.sharing_targets(),
    sweeps=sweep_descriptions(),
)

# Files of which the page is made, besides those that its script imports.
PAGE_CODE = [
    *sorted(REPORTING.glob("page*")),
    REPORTING / "answer.py",
    REPORTING / "citation.jinja",
    REPORTING / "questions.py",
    REPORTING / "settings.py",
    REPORTING / "views.py",
]
PAGE_SETTINGS = PageSettings(
    about=ABOUT,
    analyses=list(MORE_TABLES),
    more_files={title: [Path(path).name for path in paths] for title, paths in MORE_FILES.items()},
    prepared={
        dataset.label: Path(prepared("manifest.json", dataset.name, GEOMETRY_OF[FIRST_MODEL]))
        for dataset in DATASETS_READ
    },
    questions={Path(path).stem: REGISTRY.figures[Path(path).stem].question for path in PNGS},
    colours={name: style["colour"] for name, style in METHOD_STYLES.items()},
    averages={name: parent for name, (parent, _) in AVERAGES.items()},
    coefficients={name: alpha for name, (_, alpha) in AVERAGES.items()},
    upstream=UPSTREAM,
    partial=PREVIEW_DESCRIPTION,
    code=digest("write_page", *PAGE_CODE),
)


rule write_page:
    input:
        mri=TABLES["mri"],
        ri=TABLES["ri"],
        accuracy=TABLES["accuracy"],
        fit=TABLES["fit"],
        analyses=list(MORE_TABLES.values()),
        files=list(dict.fromkeys(PATHS_OF_MORE_FILES)),
        figures=PNGS,
        cells=[CELLS] if HAS_CELLS else [],
        records=SHOWN_RECORDS,
        captions=[local(REGISTRY.figures[Path(path).stem].caption) for path in PNGS],
        columns=[local(file) for file in REGISTRY.chosen_descriptions()],
        citation=local(WORKFLOW.parent / "CITATION.cff"),
    output:
        **report_files(
            page=PAGE,
            provenance=f"{METRICS}/index.provenance.json",
        ),
    log:
        f"{LOGS}/report.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cfg=to_params(PAGE_SETTINGS),
    script:
        "../scripts/write_page.py"

"""Check the labels of a target by the predictions of a pretrained model."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.analysis.label_check import LabelCheckFiles, check_labels
    from rib.analysis.settings import LabelCheckSettings
    from rib.base.settings import from_params

    files = snakemake.input
    settings = from_params(LabelCheckSettings, snakemake.params.cfg)
    check_labels(
        model=snakemake.wildcards.model,
        dataset=snakemake.wildcards.target,
        files=LabelCheckFiles(
            rows=paths(files.rows), index=Path(files.index), classes=Path(files.classes)
        ),
        labels_checked=settings.labels_checked,
        verdict=output["verdict"],
    )

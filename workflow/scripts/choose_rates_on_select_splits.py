"""Choose learning rates from a sweep, on the select splits of the targets."""

from _run import run

with run(snakemake) as output:
    from _datasets import row_files
    from _inputs import paths
    from rib.analyses.learning_rates.held_out import (
        choose_on_select_splits,
        family_recipes,
        warnings_on,
    )
    from rib.analyses.learning_rates.settings import HeldOutRateSettings
    from rib.base.files import write_text
    from rib.base.progress import log, print_lines
    from rib.base.settings import from_params
    from rib.statistics.writing import write_tables

    settings = from_params(HeldOutRateSettings, snakemake.params.cfg)
    table = choose_on_select_splits(
        manifests=paths(snakemake.input.checkpoints),
        select_files=row_files(snakemake.input, settings.methods),
        settings=settings,
    )
    write_tables({"learning_rates": table}, output, conditions=settings.conditions)
    recipes = family_recipes(table, settings)
    write_text(output["recipes"], recipes)
    print_lines(*recipes.splitlines())
    for sentence in warnings_on(table, settings.threshold):
        log.warning("%s", sentence)

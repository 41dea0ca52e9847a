"""Store the text tower of one open_clip model, and the tokens of the texts that methods use."""

from _run import run

with run(snakemake) as output:
    from _inputs import paths
    from rib.base.params import from_params
    from rib.models.convert import store_text
    from rib.models.model_settings import TextSettings

    store_text(
        archives=paths(snakemake.input.archives),
        settings=from_params(TextSettings, snakemake.params.cfg),
        tower=output["tower"],
        tokens=output["tokens"],
    )

"""Write one merge's recipe."""

from pathlib import Path

from _run import run

with run(snakemake, "merge") as out:
    from rib.merge import write_recipe

    write_recipe(
        **{key: snakemake.params.cfg[key] for key in ("mechanism", "settings", "parents")},
        manifests=[Path(path) for path in snakemake.input.manifests],
        recipe=out["recipe"],
    )

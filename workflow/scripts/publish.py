"""Publish what was made of a grid: copy it to where users look for it."""

from _run import arguments, run

with run(snakemake) as out:
    from rib.reporting.publication import publish

    publish(**arguments(publish, snakemake, out))

"""List the datasets of an evaluation group."""

from _run import arguments, run

with run(snakemake) as out:
    from rib.data.groups import write_group

    write_group(**arguments(write_group, snakemake, out))

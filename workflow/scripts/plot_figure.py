"""Plot one figure."""

from _run import arguments, named_inputs, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.figures import write_figure

    write_figure(**arguments(write_figure, snakemake, out, inputs=named_inputs(snakemake)))

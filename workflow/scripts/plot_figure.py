"""Plot one figure."""

from _run import arguments, named_inputs, run

with run(snakemake, warm="tables") as out:
    from rib.figures import write_figure

    inputs = {name: value for name, value in named_inputs(snakemake).items() if name != "fit"}
    write_figure(**arguments(write_figure, snakemake, out, inputs=inputs))

"""Write accuracies before and after fine-tuning by the number of pretraining images."""

from _run import arguments, run, warm_start

warm_start("tables")

with run(snakemake) as out:
    from rib.analysis.sizes import write_pretraining_sizes

    write_pretraining_sizes(**arguments(write_pretraining_sizes, snakemake, out))

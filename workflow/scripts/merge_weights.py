"""Write the recipe of one merge."""

from _run import arguments, run

with run(snakemake) as out:
    from rib.evaluation.recipes import write_recipe

    write_recipe(**arguments(write_recipe, snakemake, out))

"""Write the tables that papers and notes need."""

from pathlib import Path

from _run import named_inputs, run, warm_start

warm_start("tables")

with run(snakemake, "summary") as out:
    from rib.analysis.summary import write_summary

    write_summary(
        tables={name: Path(path) for name, path in named_inputs(snakemake).items()},
        **{key: snakemake.params.cfg[key] for key in ("labels", "conditions", "confidence")},
        outputs={ending: out[ending] for ending in ("md", "tex", "csv")},
    )

"""Set accuracies out of distribution against the line of baseline models."""

from pathlib import Path

from _run import run, warm_start

warm_start("tables")

with run(snakemake, "effective_robustness") as out:
    from rib.analysis.effective_robustness import write_tables

    write_tables(
        accuracy=Path(snakemake.input.accuracy),
        **{key: snakemake.params.cfg[key] for key in ("baselines", "confidence", "conditions")},
        **{name: out[name] for name in ("effective_robustness", "baseline_lines")},
    )

"""Compute effective robustness, from lines through the accuracies of baseline models."""

from pathlib import Path

from _run import run

with run(snakemake) as output:
    from rib.analyses.effective_robustness.settings import EffectiveRobustnessSettings
    from rib.analyses.effective_robustness.tables import robustness_tables
    from rib.base.settings import from_params
    from rib.statistics.writing import read_fit, write_tables

    settings = from_params(EffectiveRobustnessSettings, snakemake.params.cfg)
    tables = robustness_tables(
        accuracy=Path(snakemake.input.accuracy),
        baselines=settings.baselines,
        confidence=settings.confidence,
    )
    write_tables(
        tables,
        output,
        fit=read_fit(Path(snakemake.input.fit)),
        conditions=settings.conditions,
    )

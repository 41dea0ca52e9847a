"""List the datasets of a suite."""

from _run import run

with run(snakemake, "suites") as out:
    from rib.data.suites import write_suite

    write_suite(dict(zip(snakemake.params.cfg["datasets"], snakemake.input.manifests, strict=True)), out["manifest"])

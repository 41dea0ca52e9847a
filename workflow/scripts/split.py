"""Split one dataset's source images into train, select and test."""

from pathlib import Path

from _run import run

with run(snakemake, "split") as out:
    from rib.data.splits import write_split

    files = snakemake.input
    write_split(
        folder=Path(files.manifest).parent,
        name=snakemake.wildcards.dataset,
        apart=Path(files.apart).parent if files.apart else None,
        earlier=map(Path, files.earlier),
        **{key: snakemake.params.cfg[key] for key in ("images", "shares")},
        table=out["table"],
    )

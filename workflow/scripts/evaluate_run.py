"""Evaluate one run on one evaluation group, or on those of its datasets that `only` names."""

from dataclasses import replace
from pathlib import Path

from _run import run

with run(snakemake, warm="networks") as output:
    from _inputs import folder_of, paths, run_of
    from _networks import networks_of_run
    from rib.base.settings import from_params
    from rib.data.groups import read_group
    from rib.data.parts import read_part
    from rib.data.view import DatasetFiles
    from rib.evaluation.evaluate import EvaluationOutput, evaluate
    from rib.evaluation.merge_files import NetworkState
    from rib.evaluation.settings import EvaluationSettings

    files = snakemake.input
    settings = from_params(EvaluationSettings, snakemake.params.cfg)
    folder_of_dataset = read_group(Path(files.evaluation_group))
    split_of = dict(zip(settings.split, paths(files.splits), strict=True))
    datasets = []
    for name in folder_of_dataset if settings.only is None else settings.only:
        datasets.append(
            DatasetFiles(
                name=name,
                folder=folder_of_dataset[name],
                proxy=folder_of(files.proxy) if name in settings.excludes_proxy else None,
                split=split_of.get(name),
                decode_workers=snakemake.threads,
            )
        )
    networks = networks_of_run(files, snakemake.wildcards.method, settings)
    if settings.states is not None:
        snapshots = [NetworkState(state.alpha, state.weights) for state in settings.states]
        networks = replace(networks, states=snapshots)
    evaluate(
        run=run_of(snakemake.wildcards),
        networks=networks,
        manifests=paths(files.manifests),
        datasets=datasets,
        part=read_part(Path(files.evaluation_group)),
        settings=settings,
        output=EvaluationOutput(rows=output["rows"], manifest=output["manifest"]),
    )

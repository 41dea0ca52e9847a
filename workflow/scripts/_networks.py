"""What scripts that load the networks of a run build from inputs of their rules.

It is imported after the job has begun (see rib.jobs.script.run), since it imports torch.
"""

from _inputs import checkpoints_of, folder_of, optional_folder, optional_path, paths
from rib.config.run import Run
from rib.data.view import DatasetFiles
from rib.evaluation.merge_files import RunNetworks, run_states
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.evaluation.settings import NetworkSettings


def networks_of_run(files, method: str, settings: NetworkSettings) -> RunNetworks:
    """What the networks of a run of a method are made of.

    Args:
        files: inputs of the job, of which `model` is the manifest of the pretrained model,
            `checkpoints` are those of the settings' parents, and `merge` and `fisher` those of a
            merge, empty for other runs.
    """
    states = run_states(
        method=method,
        merge_file=optional_path(files.merge),
        algorithm=settings.algorithm,
        fisher=paths(files.fisher),
    )
    return RunNetworks(
        model_folder=folder_of(files.model),
        states=states,
        checkpoints=checkpoints_of(settings.parents, files.checkpoints),
    )


def dataset_of(files, name: str, decode_workers: int) -> DatasetFiles:
    """The dataset of a job whose images pass through a network.

    Args:
        files: inputs of the job, of which `dataset` is the manifest of the prepared dataset, and
            `dataset_proxy` and `dataset_split` are empty or missing where they don't apply.
        name: that of the dataset.
        decode_workers: threads that decode encoded photos.
    """
    return DatasetFiles(
        name=name,
        folder=folder_of(files.dataset),
        proxy=optional_folder(files.get("dataset_proxy", [])),
        split=optional_path(files.dataset_split),
        decode_workers=decode_workers,
    )


def run_on_dataset(
    files, run: Run, dataset: DatasetFiles, settings: NetworkSettings
) -> RunOnDataset:
    """The network of a run and the images of a dataset; for `files` see `networks_of_run`."""
    networks = networks_of_run(files, run.method, settings)
    return RunOnDataset(
        run=run,
        states=networks.states,
        checkpoints=networks.checkpoints,
        model_folder=networks.model_folder,
        dataset=dataset,
        view=settings.view,
        evaluation_batch_size=settings.evaluation_batch_size,
        compute=settings.compute,
    )

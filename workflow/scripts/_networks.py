"""A run's networks and datasets from a rule's inputs.

Scripts import it only when the job has begun (rib.jobs.script.run), since it imports torch.
"""

from _inputs import checkpoints_of, folder_of, optional_folder, optional_path, paths
from rib.data.view import DatasetFiles
from rib.evaluation.evaluation_settings import NetworkSettings
from rib.evaluation.networks import RunNetworks, network_states
from rib.schema.run import Run


def networks_of_job(files, run: Run, settings: NetworkSettings) -> RunNetworks:
    """Networks of a job: of one run, of variants that are evaluated together, or snapshots.

    Args:
        files: inputs of the job: `model`, the manifest of the pretrained model; `checkpoints` of
            the settings' parents; `selection` and `fisher` of some merges, else empty.
        run: its method is the entry's name, which for a network that is no merge is the method's.
    """
    return RunNetworks(
        model_folder=folder_of(files.model),
        states=network_states(run, settings, optional_path(files.selection), paths(files.fisher)),
        checkpoints=checkpoints_of(settings.parents, files.checkpoints),
    )


def dataset_of(files, name: str, decode_workers: int) -> DatasetFiles:
    """The dataset of a job whose images pass through a network.

    Args:
        files: inputs of the job: `dataset`, the manifest of the prepared dataset; `dataset_proxy`
            and `dataset_split`, which may be empty or missing.
        name: the dataset's name.
        decode_workers: threads that decode encoded images.
    """
    return DatasetFiles(
        name=name,
        folder=folder_of(files.dataset),
        proxy=optional_folder(files.get("dataset_proxy", [])),
        split=optional_path(files.dataset_split),
        decode_workers=decode_workers,
    )

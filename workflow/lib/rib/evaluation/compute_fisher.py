"""Fisher information of a network, for merges and for methods that train with it.

Merges need it of each parent (fine-tuned model) on its training images; trainings need it of the
pretrained model on the pretraining proxy (images that stand in for the pretraining data).
"""

from pathlib import Path

import safetensors.torch

from rib.base.files import write_json
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_dataset, load_proxy
from rib.evaluation.evaluation_settings import FisherSettings
from rib.evaluation.finite import refuse_infinite
from rib.evaluation.networks import RunNetworks, mixture_of_run
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fisher_information import fisher_diagonal
from rib.models.images import Images
from rib.models.network import load
from rib.schema.run import PRETRAINED, Run


def compute_fisher(
    *,
    run: Run,
    networks: RunNetworks,
    dataset: DatasetFiles,
    settings: FisherSettings,
    fisher: Path,
    manifest: Path,
) -> None:
    """Compute and store the diagonal of a run's Fisher information.

    Args:
        dataset: the run's target; for the pretrained model the dataset with the pretraining proxy.
        settings: `fisher_images` of the run's training images, or of the proxy, are used, evenly
            spaced.
        fisher: .safetensors file to write: {"fc.bias": tensor, ...} in the shapes of the
            parameters, float32, at least 0.
        manifest: JSON file to write: the device, and n, the number of training images or of the
            proxy's images.

    Raises:
        UserError: the run has several networks, or a value is not finite.
    """
    mixture = mixture_of_run(run, networks.states)
    if run.method == PRETRAINED:
        trained_on = load_proxy(dataset, settings.view)
    else:
        target = load_dataset(dataset, settings.view, TRAIN)
        trained_on = subset(target, run.size, run.seed)
    preprocessing = networks.preprocessing
    device = devices.start(settings.compute)
    images = Images(trained_on, preprocessing, device)
    pretrained, _ = load(networks.model_folder, device)
    network = apply(pretrained, mixture, networks.checkpoints).eval()
    diagonal = fisher_diagonal(network, images, settings.kind, settings.fisher_images, run.seed)
    information = {}
    for (name, _), tensor in zip(network.named_parameters(), diagonal, strict=True):
        information[name] = tensor.cpu().contiguous()
        refuse_infinite(
            information[name], f"{run} on {dataset.name}: the Fisher information of '{name}'"
        )
    safetensors.torch.save_file(information, fisher)
    write_json(manifest, {**devices.facts_of(device), "n": len(trained_on.labels)})

"""Fisher information of a network, which merges and methods that train can ask for.

Of a fine-tuned run it is on the images that it was trained on, for merges; of the pretrained model
on the pretraining proxy, for trainings on all targets.
"""

from pathlib import Path

import safetensors.torch

from rib.base.files import write_json
from rib.config.run import PRETRAINED
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import load_dataset, load_proxy
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fisher import fisher_diagonal
from rib.models.images import Images
from rib.models.network import load


def compute_fisher(
    *, source: RunOnDataset, fisher_images: int, fisher: Path, manifest: Path, kind: str = "sampled"
) -> None:
    """Compute and store the diagonal of a run's Fisher information.

    Args:
        source: the run on its target; the pretrained model on the dataset with the pretraining
            proxy.
        fisher_images: maximum number of images, evenly spaced over those that it was trained on,
            or over the proxy.
        fisher: written as .safetensors: float32, at least 0, by parameter and in its shape.
        manifest: written as JSON: the device, and n, the number of images it was trained on, or of
            the proxy.
        kind: `sampled` or `empirical`, see rib.models.fisher.

    Raises:
        UserError: a value is not finite.
    """
    device = devices.start(source.compute)
    if source.run.method == PRETRAINED:
        dataset = load_proxy(source.dataset, source.view)
    else:
        target = load_dataset(source.dataset, source.view, TRAIN)
        dataset = subset(target, source.run.size, source.run.seed)
    images = Images(dataset, source.preprocessing, device)
    pretrained, _ = load(source.model_folder, device)
    network = apply(pretrained, source.weights, source.checkpoints).eval()
    diagonal = fisher_diagonal(network, images, kind, fisher_images, source.run.seed)
    information = {}
    for (name, _), tensor in zip(network.named_parameters(), diagonal, strict=True):
        information[name] = tensor.cpu().contiguous()
        source.refuse_infinite(f"the Fisher information of '{name}'", information[name])
    safetensors.torch.save_file(information, fisher)
    write_json(manifest, {"device": device.type, "n": len(dataset.labels)})

"""Fisher information of a fine-tuned run on the images that it was trained on, for merges that ask for it."""

from pathlib import Path

import safetensors.torch

from rib.base.files import write_json
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import load_dataset
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fisher import fisher_diagonal
from rib.models.inputs import Images
from rib.models.network import load


def compute_fisher(*, source: RunOnDataset, fisher_images: int, fisher: Path, manifest: Path) -> None:
    """Compute and store the diagonal of a run's Fisher information, with labels sampled from its own softmax.

    Args:
        source: the run on its target.
        fisher_images: maximum number of images, evenly spaced over those that it was trained on.
        fisher: written as .safetensors: float32, at least 0, by parameter and in its shape.
        manifest: written as JSON: the device, and n, the number of images it was trained on.
    """
    device = devices.start(source.compute)
    dataset = subset(load_dataset(source.dataset, source.view, TRAIN), source.run.size)
    images = Images.of(dataset, source.preprocessing, device)
    model = apply(load(source.model_folder, device)[0], source.weights, source.checkpoints).eval()
    found = fisher_diagonal(model, images, "sampled", fisher_images, source.run.seed)
    names = [name for name, _ in model.named_parameters()]
    tensors = {name: tensor.cpu().contiguous() for name, tensor in zip(names, found, strict=True)}
    for name, tensor in tensors.items():
        source.refuse_infinite(f"the Fisher information of '{name}'", tensor)
    safetensors.torch.save_file(tensors, fisher)
    write_json(manifest, {"device": device.type, "n": len(dataset.labels)})

"""Selection of merges on held-out target images, such as WiSE-FT's alpha or a greedy soup."""

from collections.abc import Mapping
from pathlib import Path

import torch

from rib.base.files import write_json
from rib.base.plugins import checked_settings, load_function
from rib.base.progress import log
from rib.data.dataset import PreparedDataset
from rib.data.splits import SELECT
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.evaluation_settings import NetworkSettings
from rib.evaluation.networks import check_coefficients
from rib.evaluation.score import correct
from rib.grid.evaluation_batches import images_per_pass
from rib.methods import stated_in
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.images import Images
from rib.models.network import load


def select_coefficients(
    *,
    method: str,
    model_folder: Path,
    target: DatasetFiles,
    checkpoints: Mapping[str, Path],
    settings: NetworkSettings,
    selection: Path,
) -> None:
    """Choose an average of models by its accuracy on the select split, held-out target images.

    Args:
        method: name of the selecting method, such as `greedy_soup`. Its function gets the names of
            the parents and a function that scores an average, and returns coefficients.
        checkpoints: files of the parents, such as {"ft": Path("checkpoint.safetensors")}.
        settings: `settings.merge` is the algorithm that selects.
        selection: JSON file to write: {"coefficients": {"ft": 1.0}, "candidates": [{"coefficients":
            {"ft": 1.0}, "accuracy": 0.75, "images": 500}, ...]}, all averages that were tried.

    Raises:
        UserError: a setting doesn't fit, or the coefficients don't add up to 1 or name other models
            than the parents.
    """
    merge = settings.merge
    assert merge is not None
    select = load_function(merge.algorithm, merge.form)  # such as `select` of greedy_soup.py
    settings_of_method = checked_settings(
        select, merge.settings[method], merge.algorithm, stated_in(method)
    )
    select_images = load_dataset(target, settings.view, SELECT)
    device = devices.start(settings.compute)
    candidates = Candidates(
        model_folder=model_folder,
        checkpoints=checkpoints,
        dataset=select_images,
        evaluation_batch_size=images_per_pass(settings.evaluation_batch_size, device.type),
        device=device,
    )
    parents = list(settings.parents)
    selected = select(parents, candidates.accuracy, **settings_of_method)
    check_coefficients(selected, parents, Path(merge.algorithm).name)
    write_json(selection, {"coefficients": dict(selected), "candidates": candidates.scored()})


class Candidates:
    """Averages that an algorithm tries, with their accuracies; each is scored once."""

    def __init__(
        self,
        *,
        model_folder: Path,
        checkpoints: Mapping[str, Path],
        dataset: PreparedDataset,
        evaluation_batch_size: int,
        device: torch.device,
    ):
        self.model_folder = model_folder
        self.checkpoints = checkpoints
        self.dataset = dataset
        self.evaluation_batch_size = evaluation_batch_size
        self.device = device
        self._scores: dict[tuple, dict] = {}  # by sorted coefficients, in the order of trying

    def accuracy(self, coefficients: Mapping[str, float]) -> float:
        """Accuracy (0 to 1, six digits) of an average such as {"pretrained": 0.5, "ft": 0.5}."""
        key = tuple(sorted(coefficients.items()))
        if key not in self._scores:
            self._scores[key] = self._score(coefficients)
        accuracy: float = self._scores[key]["accuracy"]
        return accuracy

    def scored(self) -> list[dict]:
        """Candidates so far: [{"coefficients": {"ft": 1.0}, "accuracy": 0.75, "images": 500}]."""
        return list(self._scores.values())

    def _score(self, coefficients: Mapping[str, float]) -> dict:
        """For example {"coefficients": {"ft": 1.0}, "accuracy": 0.75, "images": 500}."""
        pretrained, facts = load(self.model_folder, self.device)
        network = apply(pretrained, coefficients, self.checkpoints).eval()
        inputs = Images(self.dataset, facts["preprocessing"], self.device)
        label = f"selecting on {self.dataset.name}"
        is_correct = correct(network, inputs, self.dataset, self.evaluation_batch_size, label)
        accuracy = is_correct.float().mean().item()
        log.info("%s: %.1f %% of %d select images", dict(coefficients), 100 * accuracy, len(inputs))
        return {
            "coefficients": dict(coefficients),
            "accuracy": round(accuracy, 6),
            "images": len(inputs),
        }

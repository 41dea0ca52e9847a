"""Input of jobs that pass one dataset's images through one run's network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.run import ENSEMBLE, Run
from rib.data.prepared import PreparedDataset
from rib.data.settings import DatasetView
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.networks import NetworkState
from rib.models.merge import Merge, Weights
from rib.models.settings import ComputeSettings


@dataclass(frozen=True)
class RunOnDataset:
    """One run's network and one dataset's images, those of the test split where there is one."""

    run: Run
    states: Sequence[NetworkState]  # of the run
    checkpoints: Mapping[str, Path]  # by the names that the states weigh
    model_folder: Path  # of the pretrained model
    dataset: DatasetFiles
    view: DatasetView  # the part of the dataset that is used
    evaluation_batch_size: int  # images per forward pass
    compute: ComputeSettings

    def __str__(self) -> str:
        """For messages: the run `on` the dataset."""
        return f"{self.run} on {self.dataset.name}"

    @property
    def weights(self) -> Weights:
        """Weights of the run's single state.

        Raises:
            UserError: the run is a curve or an ensemble, which has several states.
        """
        if len(self.states) > 1:
            raise UserError(
                f"{self}: a curve has several states; choose one of its end points instead."
            )
        weights = self.states[0].weights
        if isinstance(weights, Merge) and weights.form == ENSEMBLE:
            raise UserError(f"{self}: an ensemble has several networks; choose a method with one.")
        return weights

    @property
    def preprocessing(self) -> Mapping:
        """Preprocessing that the model expects."""
        return read_json(self.model_folder / "model.json")["preprocessing"]

    def images(self, limit: int) -> PreparedDataset:
        """At most `limit` images of the dataset, the first in the balanced order."""
        return first_images(load_dataset(self.dataset, self.view, TEST), limit)

    def refuse_infinite(self, name: str, tensor: torch.Tensor) -> None:
        """Raise a UserError unless all values of a tensor are finite; it calls them by the name."""
        if not tensor.isfinite().all():
            raise UserError(f"{self}: {name} is not finite; don't use these weights.")

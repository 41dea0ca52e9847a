"""Input of jobs that pass one dataset's images through one run's network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.evaluation.recipes import State
from rib.models.device import ComputeSettings


@dataclass(frozen=True)
class RunOnDataset:
    """One run's network and one dataset's images.

    Attributes:
        run: the run.
        states: its states (see rib.evaluation.recipes).
        checkpoints: checkpoint of each fine-tuned method.
        model_folder: output folder of the models job.
        dataset: the dataset; its test split is used where there is one.
        view: view of the dataset.
        batch_size: images per forward pass.
        compute: device and precision.
    """

    run: Run
    states: Sequence[State]
    checkpoints: Mapping[str, Path]
    model_folder: Path
    dataset: DatasetFiles
    view: DatasetView
    batch_size: int
    compute: ComputeSettings

    def __str__(self) -> str:
        return f"{self.run} on {self.dataset.name}"

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of the run's single state.

        Raises:
            UserError: the run is a curve, which has several states.
        """
        if len(self.states) > 1:
            raise UserError(f"{self}: a curve has several states; choose one of its end points instead.")
        return self.states[0].weights

    @property
    def preprocessing(self) -> Mapping:
        """Preprocessing that the model expects."""
        return read_json(self.model_folder / "model.json")["preprocessing"]

    def images(self, limit: int) -> PreparedDataset:
        """At most `limit` images of the dataset, the first in the balanced order."""
        return first_images(load_dataset(self.dataset, self.view, TEST), limit)


def refuse_infinite(source: RunOnDataset, what: str, tensor: torch.Tensor) -> None:
    """Check that results are finite.

    Raises:
        UserError: a value is not finite.
    """
    if not tensor.isfinite().all():
        raise UserError(f"{source}: {what} is not finite; don't use these weights.")

"""What is shown of a training after every epoch: its history so far, values in trackers, accuracies on other datasets."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from rib.base.files import read_json
from rib.base.progress import log
from rib.config.run import Run
from rib.data.splits import SELECT
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.evaluation.score import correct
from rib.models.inputs import Inputs
from rib.models.state import network_in_state
from rib.monitoring.event_file import EventFile
from rib.training.finetune import TrainingProgress, write_history

TRACKERS = (EventFile,)  # classes like this one
MONITORED_IMAGES, BATCH = 200, 50


@dataclass
class Watch:
    """Called by a training at its start and after every epoch; if anything fails here, it warns once and training goes on.

    The arguments from `run` on are those of rib.training.finetune.finetune; they are needed to monitor datasets.
    """

    log_file: str  # of the job; trackers write to the folder of the same name without ending
    history: Path | None = None  # in the job's private folder, whose name identifies its settings and inputs
    run: Run | None = None
    model_folder: Path | None = None
    view: DatasetView | None = None
    monitored: Sequence[Path] = ()  # manifests of prepared datasets, and their splits under protocol held_out

    def __post_init__(self):
        folder, job = Path(self.log_file).with_suffix(""), self.history.parent.name if self.history else ""
        self.trackers = [tracker(folder, job) for tracker in TRACKERS]
        self.warned = False

    def __call__(self, progress: TrainingProgress) -> None:
        """Report a training's progress."""
        try:
            self._report(progress)
        except Exception as error:  # hours of training must not be lost for what is only shown
            if not self.warned:
                log.warning("training continues, but cannot be watched for now: %s", error)
            self.warned = True
        self.clock, self.images = time.monotonic(), progress.images

    def _report(self, progress: TrainingProgress) -> None:
        if progress.gradient_norm is None:
            for tracker in self.trackers:
                tracker.start(resumed=bool(progress.rows))
        write_history(progress.rows, self.history)
        if progress.gradient_norm is not None:
            self._track(progress, self._measured(progress))
            if self.monitored:
                self._track(progress, self._accuracies(progress))

    def _track(self, progress: TrainingProgress, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.write(progress.rows[-1]["epoch"], values)

    def _measured(self, progress: TrainingProgress) -> dict[str, float]:
        """Values of the last epoch, by tag."""
        row = progress.rows[-1]
        speed = (progress.images - self.images) / max(time.monotonic() - self.clock, 1e-9)
        found = {key: row[key] for key in ("loss", "cross_entropy", "accuracy")}
        found |= {"learning_rate": row["lr"], "gradient_norm": progress.gradient_norm, "images_per_second": speed}
        return {f"train/{key}": value for key, value in found.items()}

    def _accuracies(self, progress: TrainingProgress) -> dict[str, float]:
        """Accuracy, 0 to 1, on the first images of each monitored dataset in the order of nested subsets, by tag."""
        preprocessing = read_json(self.model_folder / "model.json")["preprocessing"]
        splits = {path.parent.name: path for path in self.monitored if path.suffix == ".parquet"}
        state, found = {self.run.method: self.history.with_name("monitored.safetensors")}, {}
        safetensors.torch.save_file(dict(progress.changed), state[self.run.method])
        # A network is built with random weights, of which training must not notice.
        with torch.random.fork_rng([progress.device] if progress.device.type == "cuda" else []), torch.no_grad():
            for folder in (path.parent for path in self.monitored if path.suffix == ".json"):
                files = DatasetFiles(folder.parent.name, folder, split=splits.get(folder.parent.name))
                dataset = first_images(load_dataset(files, self.view, SELECT), MONITORED_IMAGES)
                inputs = Inputs.of(dataset, preprocessing, progress.device)
                network = network_in_state(self.model_folder, dict.fromkeys(state, 1.0), state, inputs)
                right = correct(network, inputs, dataset, BATCH, f"monitoring {dataset.name}")
                found[f"monitor/{dataset.name}"] = right.float().mean().item()
        return found

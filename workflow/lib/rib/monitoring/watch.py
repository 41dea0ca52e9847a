"""What is shown of a training after every epoch: its history so far, values in trackers, accuracies on other datasets."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from rib.base.progress import log
from rib.data.splits import SELECT
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.monitoring.event_file import EventFile
from rib.training.finetune import accuracy_of, write_history

TRACKERS = (EventFile,)  # classes like this one
MONITORED_IMAGES, BATCH = 200, 50


@dataclass
class Watch:
    """Reports a training; see rib.training.finetune for what it is called with. If anything fails here, it warns once."""

    model_folder: Path
    view: DatasetView
    log_file: str  # of the job; trackers write to the folder of the same name without ending
    monitored: Sequence[Path] = ()  # manifests of prepared datasets
    monitored_splits: Sequence[Path] = ()  # their splits, under protocol held_out
    monitored_related: Sequence[Path] = ()  # manifests of those that share images with the proxy
    monitored_proxy_folder: Path | None = None  # prepared dataset that holds the pretraining proxy
    # in the job's private folder, whose name identifies its settings and inputs
    history: Path | None = None
    workers: int = 1  # threads that decode encoded photos of monitored datasets
    warned: bool = False

    def __call__(
        self,
        rows: list[dict],
        images: int,
        norm: float | None,
        changed: Mapping,
        device: torch.device,
    ):
        """Report a training's start, which has no gradient norm, or its last epoch."""
        try:
            write_history(rows, self.history)
            if norm is None:
                folder = Path(self.log_file).with_suffix("")
                self.trackers = [kind(folder, self.history.parent.name) for kind in TRACKERS]
                for tracker in self.trackers:
                    tracker.start(resumed=bool(rows))
            else:
                speed = (images - self.images) / max(time.monotonic() - self.clock, 1e-9)
                self._track(
                    rows, "train", {**rows[-1], "gradient_norm": norm, "images_per_second": speed}
                )
                if self.monitored:
                    self._track(rows, "monitor", self._accuracies(changed, device))
        except Exception as error:  # hours of training must not be lost for what is only shown
            self._warn(error)
        self.clock, self.images = time.monotonic(), images

    def _warn(self, error: Exception) -> None:
        """Say once that something is not shown."""
        if not self.warned:
            log.warning("training continues, but cannot be watched for now: %s", error)
        self.warned = True

    def _track(self, rows: list[dict], group: str, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.write(
                rows[-1]["epoch"],
                {f"{group}/{key}": values[key] for key in values if key != "epoch"},
            )

    def _accuracies(
        self, changed: Mapping[str, torch.Tensor], device: torch.device
    ) -> dict[str, float]:
        """Accuracy, 0 to 1, on the first images of each monitored dataset in the order of nested subsets.

        A dataset that cannot be scored is left out, with a warning, and the others are shown.
        """
        state = self.history.with_name("monitored.safetensors")
        safetensors.torch.save_file(dict(changed), state)
        accuracies = {}
        # A network is built with random weights, of which training must not notice.
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            for files in self._datasets():
                label = f"monitoring {files.name}"
                try:
                    whole = load_dataset(files, self.view, SELECT)
                    images = first_images(whole, MONITORED_IMAGES)
                    accuracy = accuracy_of(state, self.model_folder, images, BATCH, device, label)
                    accuracies[files.name] = accuracy
                except Exception as error:
                    self._warn(error)
        return accuracies

    def _datasets(self) -> list[DatasetFiles]:
        """The monitored datasets, without images of the pretraining proxy, as their splits are."""
        split_of = {path.parent.name: path for path in self.monitored_splits}
        datasets = []
        for manifest in self.monitored:
            folder = manifest.parent
            name = folder.parent.name
            proxy = self.monitored_proxy_folder if manifest in self.monitored_related else None
            datasets.append(
                DatasetFiles(name, folder, proxy, split_of.get(name), workers=self.workers)
            )
        return datasets

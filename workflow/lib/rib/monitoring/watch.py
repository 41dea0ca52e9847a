"""Views of a training after every epoch: history, trackers, accuracies on other datasets."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from rib.base.progress import log
from rib.data.data_settings import DatasetView
from rib.data.dataset import PreparedDataset
from rib.data.splits import SELECT
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.monitoring.event_file import EventFile
from rib.training.fit import accuracy_of
from rib.training.history import write_history
from rib.training.loop import ReadChanges

TRACKERS = (EventFile,)  # classes with the methods of EventFile
MONITORED_IMAGES = 200  # of each dataset, at most
BATCH = 50  # monitored images per forward pass


def datasets_there(entries: Sequence[Mapping[str, Any]], decode_workers: int) -> list[DatasetFiles]:
    """Files of the datasets to monitor, without datasets that aren't prepared yet.

    A training doesn't wait for them, because no result depends on them.

    Args:
        entries: [{"name": "noto", "manifest": ".../noto/.../manifest.json", "proxy": [], "split":
            []}]. `proxy` is the manifest of the pretraining proxy (a dataset in place of the
            pretraining data) if its images are left out; both it and `split` may be empty.
        decode_workers: threads that decode encoded images.
    """
    datasets = []
    for entry in entries:
        files = [Path(entry[key]) for key in ("manifest", "proxy", "split") if entry[key]]
        missing = [file for file in files if not file.exists()]
        if missing:
            log.info("%s is not monitored, since %s is not made yet", entry["name"], missing[0])
            continue
        dataset = DatasetFiles(
            name=entry["name"],
            folder=Path(entry["manifest"]).parent,
            proxy=Path(entry["proxy"]).parent if entry["proxy"] else None,
            split=Path(entry["split"]) if entry["split"] else None,
            decode_workers=decode_workers,
        )
        datasets.append(dataset)
    return datasets


@dataclass
class Watch:
    """Writes how a training goes, for a user who looks on while it runs.

    rib.training.loop calls it at the start and after each epoch. It then writes history.csv, and
    for TensorBoard {"train/loss": 0.3, ..., "monitor/noto": 0.8}: the epoch's row of the history,
    and the accuracy on each monitored dataset. The datasets are read in the constructor, before a
    GPU is locked. If anything fails here, it warns once, and the training continues.
    """

    # CSV file in the job's private folder, whose name identifies settings and inputs.
    history: Path
    model_folder: Path
    view: DatasetView  # of the monitored datasets
    log_file: str  # of the job; trackers write to a folder with this path without ending
    monitored: Sequence[DatasetFiles] = ()  # whose accuracy is shown
    warned: bool = False  # whether a failure was logged

    def __post_init__(self) -> None:
        """Read up to MONITORED_IMAGES images of each monitored dataset."""
        self.images_of_datasets: list[PreparedDataset] = []
        for files in self.monitored:
            try:
                dataset = load_dataset(files, self.view, SELECT)
                self.images_of_datasets.append(first_images(dataset, MONITORED_IMAGES))
            except Exception as error:
                self._warn(error)

    def __call__(
        self,
        rows: list[dict],
        images: int,
        norm: float | None,
        read_changes: ReadChanges,
        device: torch.device,
    ) -> None:
        """Show the start of a training, or its last epoch.

        Args:
            rows: history of the training, a row per epoch: [{"epoch": 1, "lr": 0.1, "loss": 0.7,
                ...}].
            images: number of training images so far, counting each epoch.
            norm: mean norm of the gradients in the epoch; None at the start.
            read_changes: gives the tensors that the training has changed, by name; called only if
                datasets are monitored.
            device: for scoring monitored datasets.
        """
        try:
            write_history(rows, self.history)
            if norm is None:
                self._start_trackers(is_resumed=bool(rows))
            else:
                self._report_epoch(rows, images, norm)
                if self.monitored:
                    self._track(rows, "monitor", self._accuracies(read_changes(), device))
        except Exception as error:  # hours of training must not be lost
            self._warn(error)
        # For the images per second of the next epoch.
        self.time_of_last_call = time.monotonic()
        self.images_at_last_call = images

    def _warn(self, error: Exception) -> None:
        """Log only the first failure."""
        if not self.warned:
            log.warning("training continues, but cannot be watched for now: %s", error)
        self.warned = True

    def _start_trackers(self, is_resumed: bool) -> None:
        """Make the trackers, which write to a folder beside the job's log."""
        folder = Path(self.log_file).with_suffix("")
        job = self.history.parent.name
        self.trackers = [tracker_class(folder, job) for tracker_class in TRACKERS]
        for tracker in self.trackers:
            tracker.start(resumed=is_resumed)

    def _report_epoch(self, rows: list[dict], images: int, norm: float) -> None:
        """Give trackers the last epoch's row of the history, norm of gradients and speed."""
        seconds = max(time.monotonic() - self.time_of_last_call, 1e-9)
        values = {
            **rows[-1],
            "gradient_norm": norm,
            "images_per_second": (images - self.images_at_last_call) / seconds,
        }
        self._track(rows, "train", values)

    def _track(self, rows: list[dict], group: str, values: Mapping[str, float]) -> None:
        """Give values of an epoch to the trackers, tagged with a group: {"train/loss": 0.3}."""
        epoch = rows[-1]["epoch"]
        values_by_tag = {}
        for key, value in values.items():
            if key != "epoch":
                values_by_tag[f"{group}/{key}"] = value
        for tracker in self.trackers:
            tracker.write(epoch, values_by_tag)

    def _accuracies(
        self, changed: Mapping[str, torch.Tensor], device: torch.device
    ) -> dict[str, float]:
        """Accuracy, 0 to 1, on monitored datasets that can be scored, such as {"noto": 0.8}.

        `changed` are the tensors that the training has changed, by name.
        """
        state = self.history.with_name("monitored.safetensors")
        safetensors.torch.save_file(dict(changed), state)
        accuracies = {}
        # Building a network draws random weights, which must not change the training's random
        # state.
        devices_with_random_state = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices_with_random_state), torch.no_grad():
            for images in self.images_of_datasets:
                label = f"monitoring {images.name}"
                try:
                    accuracies[images.name] = accuracy_of(
                        state, self.model_folder, images, BATCH, device, label
                    )
                except Exception as error:
                    self._warn(error)
        return accuracies

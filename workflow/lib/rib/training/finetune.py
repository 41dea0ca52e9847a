"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and lib/experiment.py): SGD with
momentum, linear warm-up then cosine to zero, the evaluation transform without augmentation, the pretrained
1000-way head kept, cross-entropy on the class logits of the target's label space, the last epoch kept.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress, log
from rib.config.run import ALL, Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, DatasetView, load_dataset, load_proxy
from rib.methods import load_algorithm
from rib.methods.base import FineTuning, Images, Task
from rib.models import device as devices
from rib.models.checkpoint import apply, xor_compress
from rib.models.class_logits import class_logits, class_members
from rib.models.inputs import Inputs
from rib.models.network import load
from rib.training.training_state import TrainingState

CHANCE = 0.95  # a cross-entropy above this fraction of log(classes) means that almost nothing was learned
HISTORY = ("epoch", "lr", "loss", "cross_entropy", "accuracy")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that all methods share.

    Attributes:
        batch_size: images per step.
        micro_batch_size: images per forward pass, or `all` for the whole batch.
        warmup_steps: maximum number of linear warm-up steps.
        warmup_fraction: maximum fraction of warm-up steps; the smaller of the two limits applies.
    """

    epochs: int
    batch_size: int
    micro_batch_size: int | str
    momentum: float
    weight_decay: float
    warmup_steps: float
    warmup_fraction: float


def finetune(
    *,
    run: Run,
    model_folder: Path,
    target: DatasetFiles,
    reference: DatasetFiles | None,
    view: DatasetView,
    start: Mapping[str, Path],
    algorithm: str,
    settings: Mapping,
    training: TrainingSettings,
    compute: devices.ComputeSettings,
    rescue: Path,
    saved: Path,
    checkpoint: Path,
    history: Path,
    manifest: Path,
    snapshots: Sequence[Path] = (),
) -> None:
    """Train, then write the checkpoint and the history.

    Args:
        reference: the pretraining proxy, if the method uses it.
        start: checkpoint of the method that this one starts from, by method; empty for the pretrained model.
        algorithm: file of the method's algorithm.
        rescue: written if training diverges: the state after the last finite epoch.
        saved: where the training state is saved periodically.
        checkpoint: written as .safetensors, in the forms of rib.models.checkpoint.
        manifest: written as JSON: the device, the label space digest and the number of images seen.
        snapshots: paths of a checkpoint after each epoch; empty for none.

    Raises:
        UserError: the loss or a trained tensor is not finite, or the method can't train this network or lacks an input.
    """
    device = devices.start(compute)
    torch.manual_seed(run.seed)
    method = load_algorithm(algorithm, settings)
    model, facts = load(model_folder, device, method.dropout, method.drop_path)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if start and apply(model, dict.fromkeys(start, 1.0), start) is not model:
        raise UserError(f"method {run.method} can't start from '{next(iter(start))}', which trains a prompt.")
    images = subset(load_dataset(target, view, TRAIN), run.size)
    seen = [images, load_proxy(reference, view) if reference else None]
    seen = [dataset and on_device(dataset, facts["preprocessing"], device) for dataset in seen]
    try:
        method.setup(Task(model, *seen, run.seed))
    except ValueError as error:
        raise UserError(f"method {run.method} on model {run.model}: {error}.") from error
    with rescued(saved, rescue, "the method's entry"):
        rows, changed = train(method, pretrained, training, run, device, saved, snapshots)
    warn_of_chance(rows, images)
    safetensors.torch.save_file(xor_compress(changed, pretrained), checkpoint)
    write_history(rows, history)
    number = len(images.labels) * training.epochs
    write_json(manifest, {"device": device.type, "label_space": images.space.digest, "images": number})


def write_history(rows: list[dict], path: Path) -> None:
    """Write one row per epoch: epoch, lr (of the last step), and mean loss, cross-entropy and accuracy."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def on_device(dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> Images:
    """A dataset's images and labels, prepared for a network on a device."""
    pixels = Inputs(dataset.images, preprocessing["mean"], preprocessing["std"], device, dataset.rows)
    return Images(pixels, torch.from_numpy(dataset.labels).to(device), class_members(dataset.space, device))


def warn_of_chance(rows: list[dict], images: PreparedDataset) -> None:
    """Warn if the last epoch's cross-entropy is near chance."""
    final = rows[-1]["cross_entropy"]
    if final > CHANCE * math.log(len(images.space.keys)):
        log.warning("the cross-entropy ends at chance (%.2f); see history.csv", final)


class DivergenceError(Exception):
    """Training led to a value that is not finite; `good` are the changes after the finite epochs before it."""

    def __init__(self, run: Run, place: str, lr: float, epochs: int, good: Mapping[str, Tensor]):
        self.epochs = epochs
        self.good = good
        super().__init__(
            f"training diverged: model {run.model}, method {run.method}, target {run.target}: {place} is "
            f"not finite with the peak learning rate {lr:g}"
        )


@contextmanager
def rescued(saved: Path, rescue: Path, place: str) -> Iterator[None]:
    """Raise a UserError if training diverges, and write the state after the last finite epoch to `rescue`."""
    try:
        yield
    except DivergenceError as error:
        saved.unlink(missing_ok=True)  # resuming would diverge again
        kept = "no epoch was finished"
        if error.epochs:
            rescue.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(dict(error.good), rescue)
            kept = f"the state after epoch {error.epochs} is kept in {rescue}"
        raise UserError(f"{error}; {kept}; lower lr in {place}.") from error


def train(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    training: TrainingSettings,
    run: Run,
    device: torch.device,
    saved: Path | None = None,
    snapshots: Sequence[Path] = (),
) -> tuple[list[dict], dict[str, Tensor]]:
    """Train a method that has been set up, resuming from the state in `saved` if there is one.

    Returns:
        One history row per epoch, and the changed tensors.

    Raises:
        DivergenceError: the loss or a trained tensor is not finite.
    """
    labels = method.task.target.labels
    trainable = dict(method.trainable())
    for name, parameter in method.model.named_parameters():
        parameter.requires_grad_(name in trainable)
    shared = {"momentum": training.momentum, "weight_decay": training.weight_decay}
    optimizer = torch.optim.SGD(trainable.values(), lr=method.lr, fused=device.type == "cuda", **shared)
    method.train_mode()
    devices.compiled(method.model)
    state = TrainingState(saved, method.model, optimizer, trainable)
    first, skipped, rows, sums, good = state.restore()
    method.step = first * math.ceil(len(labels) / training.batch_size) + skipped
    micro = training.batch_size if training.micro_batch_size == ALL else training.micro_batch_size
    rates = list(learning_rates(method.lr, len(labels), training))
    progress = Progress(desc=f"training {run}", total=len(labels) * training.epochs, unit="image")
    progress.update(first * len(labels) + min(skipped * training.batch_size, len(labels)))
    for epoch in range(first, training.epochs):
        for batch in epoch_batches(len(labels), training.batch_size, run.seed, epoch)[len(sums) :]:
            optimizer.param_groups[0]["lr"] = rates[method.step]
            sums.append(_step(method, optimizer, batch, labels[batch], device, micro) * len(batch))
            method.step += 1
            progress.update(len(batch))
            state.save_if_due(epoch, len(sums), rows, sums, good)
        good = _finite_changes(method, pretrained, torch.stack(sums), epoch, run, good)
        if snapshots:
            safetensors.torch.save_file(xor_compress(good, pretrained), snapshots[epoch])
        means = (torch.stack(sums).sum(dim=0) / len(labels)).tolist()
        rows.append(dict(zip(HISTORY, (epoch + 1, rates[method.step - 1], *means), strict=True)))
        sums = []
    progress.close()
    return rows, good


def _finite_changes(
    method: FineTuning, pretrained: Mapping[str, Tensor], sums: Tensor, epoch: int, run: Run, good: Mapping
) -> dict[str, Tensor]:
    """Changed tensors after an epoch; checked only once per epoch, to avoid a GPU synchronisation at every step."""
    if not sums.isfinite().all():
        step = epoch * len(sums) + int((~sums.isfinite()).any(dim=1).nonzero()[0]) + 1
        raise DivergenceError(run, f"the loss at epoch {epoch + 1}, step {step}", method.lr, epoch, good)
    changed = method.state_delta(pretrained)
    for name, tensor in changed.items():
        if not tensor.isfinite().all():  # the last step's loss was finite, but its update is not
            raise DivergenceError(run, f"'{name}' after step {(epoch + 1) * len(sums)}", method.lr, epoch, good)
    return {name: tensor.clone() for name, tensor in changed.items()}


def _step(
    method: FineTuning,
    optimizer: torch.optim.Optimizer,
    batch: np.ndarray,
    labels: Tensor,
    device: torch.device,
    micro: int,
) -> Tensor:
    """Take one step; return loss, cross-entropy and accuracy of the batch before it: (3,).

    Gradients are accumulated over micro-batches of `micro` images. Their sum is the gradient of the batch, since losses
    and penalties are means over images or don't depend on them.
    """
    optimizer.zero_grad()
    total = torch.zeros(3, dtype=torch.float64, device=device)
    for start in range(0, len(batch), micro):
        rows, own = batch[start : start + micro], labels[start : start + micro]
        with devices.autocast(device):
            logits = method.logits(rows)
        logits = logits.float()
        scores = class_logits(logits, method.task.target.members)
        error = F.cross_entropy(scores, own)
        loss = error + method.penalty(rows, logits)
        share = len(rows) / len(batch)
        (loss if share == 1 else loss * share).backward()
        right = (scores.detach().argmax(dim=1) == own).float().mean()
        total += share * torch.stack([loss.detach(), error.detach(), right])
    optimizer.step()
    return total


def learning_rates(peak: float, images: int, training: TrainingSettings) -> Iterator[float]:
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code always warms up for 196 steps, so short runs never leave the warm-up (lib/argument.py:26 with
    utils/utils.py:92-100). Here the warm-up is at most a fraction of all steps.
    """
    steps = math.ceil(images / training.batch_size) * training.epochs
    warmup = min(training.warmup_steps, int(training.warmup_fraction * steps))
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            yield peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of each batch of an epoch; the permutation depends only on seed and epoch, the last batch may be shorter."""
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[start : start + batch_size] for start in range(0, images, batch_size)]

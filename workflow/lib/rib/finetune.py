"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and lib/experiment.py): SGD with
momentum, linear warm-up then cosine to zero, the evaluation transform without augmentation, the pretrained
1000-way head kept, cross-entropy on the class logits of the target's class space, the last epoch kept.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from rib.data.prepared import PreparedDataset
from rib.data.splits import TRAIN, opened, part, reference_images, subset
from rib.io import Progress, UserError, log, write_json
from rib.methods import load_mechanism
from rib.methods._base import FineTuning, Images, Task
from rib.models import device as devices
from rib.models.checkpoint import apply, packed
from rib.models.class_logits import class_logits, class_members
from rib.models.inputs import Inputs
from rib.models.pretrained import load
from rib.resume import TrainingState
from rib.runs import ALL

CHANCE = 0.95  # a cross-entropy above this share of log(classes) says that next to nothing was learned


def finetune(
    *,
    model_folder: Path,
    target_folder: Path,
    reference_folder: Path | None,
    apart: Path | None,
    images: Mapping,
    start: Mapping[str, Path],
    what: Mapping[str, str],
    mechanism: str,
    settings: Mapping,
    training: Mapping,
    split: Path | None,
    reference_split: Path | None,
    size: str,
    seed: int,
    compute: Mapping,
    rescue: Path,
    saved: Path,
    checkpoint: Path,
    history: Path,
    manifest: Path,
    snapshots: Sequence[Path] = (),
) -> None:
    """Train, then write what changed and the history.

    Args:
        model_folder: what a models job wrote.
        target_folder: what a prepare job wrote for the target.
        reference_folder: likewise for the family's reference dataset, where the method uses it.
        apart: folder of the dataset of which a part stands for pretraining, where the target shares its sources.
        images: how datasets are seen (rib.data.splits.opened).
        start: checkpoint of the method that this one starts from, by method; empty for the pretrained model.
        what: model, method and target, for messages.
        mechanism: file of the method's mechanism.
        settings: the method's own settings.
        training: epochs, batch_size, micro_batch_size, momentum, weight_decay, warmup_steps, warmup_fraction.
        split: of the target (protocol `held_out`), or None to train on all images (`paper`).
        reference_split: likewise of the reference dataset, None too where a part of one that is evaluated is used.
        size: of the subset to train on: `all`, a number of images or a fraction.
        seed: of everything random.
        compute: device, threads (see rib.models.device.start).
        rescue: where the state after the last good epoch is kept when training diverges.
        saved: where the state is kept in the midst of training.
        checkpoint: written as .safetensors, in the forms of rib.models.checkpoint.
        history: written as CSV: epoch, lr (of its last step), loss and the cross-entropy in it (means over
            images), accuracy (fraction).
        manifest: written as JSON: the device, the class space's digest and the number of images seen.
        snapshots: where what changed is kept after each epoch, as in `checkpoint`; empty to keep none.

    Raises:
        UserError: the loss or a trained tensor is not finite, or the method can't train this network.
    """
    device = devices.start(**compute)
    torch.manual_seed(seed)
    method = load_mechanism(mechanism, settings)
    model, facts = load(model_folder, device, method.dropout, method.drop_path)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if start and apply(model, dict.fromkeys(start, 1.0), start) is not model:
        raise UserError(
            f"method {what['method']} can't start from '{next(iter(start))}', which trains a frame around the input."
        )
    target = subset(part(opened(target_folder, what["target"], images, apart), TRAIN, split), size)
    reference = reference_images(reference_folder, images, reference_split) if reference_folder else None
    seen = [dataset and on_device(dataset, facts["preprocessing"], device) for dataset in (target, reference)]
    try:
        method.begin(Task(model, *seen, seed, training["batch_size"]))
    except ValueError as error:
        raise UserError(f"method {what['method']} on model {what['model']}: {error}.") from error
    try:
        rows, changed = train(method, pretrained, training, seed, device, what, saved, snapshots)
    except DivergenceError as error:
        saved.unlink(missing_ok=True)  # it leads nowhere
        raise UserError(f"{error}; {rescued(error, rescue)}lower lr in the method's entry.") from error
    warn_of_chance(rows, target, "/".join(what.values()))
    safetensors.torch.save_file(packed(changed, pretrained), checkpoint)
    write_history(rows, history)
    seen_images = len(target.labels) * training["epochs"]
    write_json(manifest, {"device": device.type, "class_space": target.space.digest, "images": seen_images})


def write_history(rows: list[dict], path: Path) -> None:
    """Write what `train` tells of each epoch as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "lr", "loss", "cross_entropy", "accuracy"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def on_device(dataset: PreparedDataset, preprocessing: Mapping, device: torch.device) -> Images:
    """A dataset's images and labels as a network on a device takes them."""
    pixels = Inputs(dataset.images, preprocessing["mean"], preprocessing["std"], device, dataset.rows)
    return Images(pixels, torch.from_numpy(dataset.labels).to(device), class_members(dataset.space, device))


def warn_of_chance(rows: list[dict], target: PreparedDataset, title: str) -> None:
    """Warn where the last row of a history says that next to nothing was learned."""
    final = rows[-1]["cross_entropy"]
    if final > CHANCE * math.log(len(target.space.keys)):
        log.warning("%s: the cross-entropy ends at chance (%.2f); see history.csv", title, final)


class DivergenceError(Exception):
    """Training led to a number that is not finite.

    Attributes:
        epochs: finite ones before.
        good: what had changed after them.
    """

    def __init__(self, what: Mapping, place: str, lr: float, epochs: int, good: Mapping[str, Tensor]):
        self.epochs = epochs
        self.good = good
        super().__init__(
            f"training diverged: model {what['model']}, method {what['method']}, target {what['target']}: {place} is "
            f"not finite with the peak learning rate {lr:g}"
        )


def rescued(error: DivergenceError, path: Path) -> str:
    """Keep the state after the last good epoch; returns a clause that says so."""
    if not error.epochs:
        return "nothing had been learned yet; "
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(dict(error.good), path)
    return f"the state after epoch {error.epochs} is kept in {path}; "


def train(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    training: Mapping,
    seed: int,
    device: torch.device,
    what: Mapping,
    saved: Path | None = None,
    snapshots: Sequence[Path] = (),
) -> tuple[list[dict], dict[str, Tensor]]:
    """Train a method that has begun; from where a killed training was, if that was saved.

    Args:
        saved: where the state is kept now and then.
        snapshots: where what changed is kept after each epoch.

    Returns:
        A row of the history per epoch, and what changed.

    Raises:
        DivergenceError: the loss or a trained tensor is not finite.
    """
    images = method.task.target.labels
    trainable = dict(method.trainable())
    for name, parameter in method.model.named_parameters():
        parameter.requires_grad_(name in trainable)
    settings = {key: training[key] for key in ("momentum", "weight_decay")}
    optimizer = torch.optim.SGD(trainable.values(), lr=method.lr, fused=device.type == "cuda", **settings)
    method.train_mode()
    devices.compiled(method.model)
    state = TrainingState(saved, method.model, optimizer, trainable)
    first, skipped, rows, sums, good = state.restore()
    per_epoch = math.ceil(len(images) / training["batch_size"])
    method.step = first * per_epoch + skipped
    micro = training["batch_size"] if training["micro_batch_size"] == ALL else training["micro_batch_size"]
    rates = list(learning_rates(method.lr, len(images), training))
    progress = Progress(
        desc=f"training {'/'.join(what.values())}", total=len(images) * training["epochs"], unit="image"
    )
    progress.update(first * len(images) + min(skipped * training["batch_size"], len(images)))
    for epoch in range(first, training["epochs"]):
        for batch in epoch_batches(len(images), training["batch_size"], seed, epoch)[len(sums) :]:
            optimizer.param_groups[0]["lr"] = rates[method.step]
            sums.append(_step(method, optimizer, batch, images[batch], device, micro) * len(batch))
            method.step += 1
            progress.update(len(batch))
            state.save_if_due(epoch, len(sums), rows, sums, good)
        good = _finite_changes(method, pretrained, torch.stack(sums), epoch, what, good)
        if snapshots:
            safetensors.torch.save_file(packed(good, pretrained), snapshots[epoch])
        means = (torch.stack(sums).sum(dim=0) / len(images)).tolist()
        rows.append(
            {"epoch": epoch + 1, "lr": rates[method.step - 1]}
            | dict(zip(("loss", "cross_entropy", "accuracy"), means, strict=True))
        )
        sums = []
    progress.close()
    return rows, good


def _finite_changes(
    method: FineTuning, pretrained: Mapping[str, Tensor], sums: Tensor, epoch: int, what: Mapping, good: Mapping
) -> dict[str, Tensor]:
    """What has changed after an epoch; one look per epoch, so that a GPU is not waited for at every step.

    Raises:
        DivergenceError: a loss or a changed tensor is not finite.
    """
    if not sums.isfinite().all():
        step = epoch * len(sums) + int((~sums.isfinite()).any(dim=1).nonzero()[0]) + 1
        raise DivergenceError(what, f"the loss at epoch {epoch + 1}, step {step}", method.lr, epoch, good)
    changed = method.changes(pretrained)
    for name, tensor in changed.items():
        if not tensor.isfinite().all():  # the last step's loss was finite, what it led to isn't
            raise DivergenceError(what, f"'{name}' after step {(epoch + 1) * len(sums)}", method.lr, epoch, good)
    return {name: tensor.clone() for name, tensor in changed.items()}


def _step(
    method: FineTuning,
    optimizer: torch.optim.Optimizer,
    batch: np.ndarray,
    labels: Tensor,
    device: torch.device,
    micro: int,
) -> Tensor:
    """One step; loss, cross-entropy and accuracy of the batch before it: (3,).

    Images pass through the network `micro` at a time; gradients add up to those of the batch, since losses and penalties
    are means over images, or don't depend on them.
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


def learning_rates(peak: float, images: int, training: Mapping):
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code warms up for 196 steps whatever the run's length, so that short runs never leave the
    warm-up (lib/argument.py:26 with utils/utils.py:92-100); here it is at most a fraction of all steps.

    Args:
        peak: highest learning rate.
        images: number of training images.
        training: epochs, batch_size, warmup_steps, warmup_fraction (0 to 1).
    """
    steps = math.ceil(images / training["batch_size"]) * training["epochs"]
    warmup = min(training["warmup_steps"], int(training["warmup_fraction"] * steps))
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            yield peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of each batch of an epoch: a permutation that depends on seed and epoch only, the last batch shorter."""
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[start : start + batch_size] for start in range(0, images, batch_size)]

"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and lib/experiment.py): SGD with
momentum, linear warm-up then cosine to zero, the evaluation transform without augmentation, the pretrained
1000-way head kept, cross-entropy on the class logits of the target's class space, the last epoch kept.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch.nn import functional as F

from rib.data.prepared import PreparedDataset
from rib.io import Progress, UserError, log, write_json
from rib.methods import load_mechanism
from rib.methods._base import FineTuning
from rib.models import device as devices
from rib.models.checkpoint import changed_tensors
from rib.models.class_logits import class_logits, class_members
from rib.models.inputs import Inputs
from rib.models.pretrained import load

CHANCE = 0.95  # a cross-entropy above this share of log(classes) says that next to nothing was learned


def finetune(
    *,
    model_folder: Path,
    target_folder: Path,
    what: Mapping[str, str],
    mechanism: str,
    settings: Mapping,
    training: Mapping,
    seed: int,
    compute: Mapping,
    checkpoint: Path,
    history: Path,
    manifest: Path,
) -> None:
    """Train, then write the tensors that changed and the history.

    Args:
        model_folder: what a models job wrote.
        target_folder: what a prepare job wrote for the target.
        what: model, method and target, for messages.
        mechanism: file of the method's mechanism.
        settings: the method's own settings.
        training: epochs, batch_size, momentum, weight_decay, warmup_steps, warmup_fraction.
        seed: of everything random.
        compute: device, threads_per_job.
        checkpoint: written as .safetensors.
        history: written as CSV: epoch, lr (of its last step), loss and the cross-entropy in it (means over
            images), accuracy (fraction).
        manifest: written as JSON: the device, the class space's digest and the number of images seen.

    Raises:
        UserError: the loss or a trained tensor is not finite.
    """
    device = devices.start(compute["device"], compute["threads_per_job"])
    torch.manual_seed(seed)
    model, facts = load(model_folder, device)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    target = PreparedDataset.open(target_folder, what["target"])
    preprocessing = facts["preprocessing"]
    method = load_mechanism(mechanism, settings)
    method.begin(model, Inputs(target.images, preprocessing["mean"], preprocessing["std"], device))
    rows = _train(method, target, training, seed, device, what)
    changed = changed_tensors(start, model.state_dict())
    for name, tensor in changed.items():
        if not tensor.isfinite().all():  # the last step's loss was finite, what it led to isn't
            raise UserError(_not_finite(what, f"'{name}' after the last step", method.lr))
    error, title = rows[-1]["cross_entropy"], "/".join(what.values())
    if error > CHANCE * math.log(len(target.space.keys)):
        log.warning("%s: the cross-entropy ends at chance (%.2f); see history.csv", title, error)
    safetensors.torch.save_file(changed, checkpoint)
    with open(history, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "lr", "loss", "cross_entropy", "accuracy"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(
        manifest,
        {"device": device.type, "class_space": target.space.digest, "images": len(target.labels) * training["epochs"]},
    )


def _train(
    method: FineTuning, target: PreparedDataset, training: Mapping, seed: int, device: torch.device, what: Mapping
) -> list[dict]:
    members = class_members(target.space, device)
    labels = torch.from_numpy(target.labels).to(device)
    trainable = dict(method.trainable())
    for name, parameter in method.model.named_parameters():
        parameter.requires_grad_(name in trainable)
    optimizer = torch.optim.SGD(
        trainable.values(), lr=method.lr, momentum=training["momentum"], weight_decay=training["weight_decay"]
    )
    schedule = learning_rates(method.lr, len(labels), training)
    method.train_mode()
    rows = []
    title = "/".join(what.values())
    progress = Progress(desc=f"training {title}", total=len(labels) * training["epochs"], unit="image")
    for epoch in range(training["epochs"]):
        losses, errors, correct = [], [], []
        for batch in epoch_batches(len(labels), training["batch_size"], seed, epoch):
            optimizer.param_groups[0]["lr"] = lr = next(schedule)
            with devices.autocast(device):
                logits = method.logits(batch)
            logits = logits.float()
            scores = class_logits(logits, members)
            error = F.cross_entropy(scores, labels[batch])
            loss = error + method.penalty(batch, logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach() * len(batch))
            errors.append(error.detach() * len(batch))
            correct.append((scores.detach().argmax(dim=1) == labels[batch]).sum())
            progress.update(len(batch))
        # One look per epoch, so that a GPU is not waited for at every step.
        total = torch.stack(losses)
        if not total.isfinite().all():
            step = epoch * len(losses) + int((~total.isfinite()).nonzero()[0]) + 1
            raise UserError(_not_finite(what, f"the loss at epoch {epoch + 1}, step {step}", method.lr))
        rows.append(
            {
                "epoch": epoch + 1,
                "lr": lr,
                "loss": total.sum().item() / len(labels),
                "cross_entropy": torch.stack(errors).sum().item() / len(labels),
                "accuracy": torch.stack(correct).sum().item() / len(labels),
            }
        )
    progress.close()
    return rows


def _not_finite(what: Mapping, place: str, lr: float) -> str:
    return (
        f"training diverged: model {what['model']}, method {what['method']}, target {what['target']}: {place} is not "
        f"finite with the peak learning rate {lr:g}; lower lr in the method's entry."
    )


def learning_rates(peak: float, images: int, training: Mapping):
    """Yield the learning rate of each step: linear warm-up to the peak, then a cosine to zero.

    The released code warms up for 196 steps whatever the run's length, so that short runs never leave the
    warm-up (lib/experiment.py); here it is at most a fraction of all steps.

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

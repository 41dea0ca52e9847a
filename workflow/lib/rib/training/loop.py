"""The training loop of fine-tuning and pretraining: epochs, batches, learning rates, snapshots."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from rib.base.errors import UserError
from rib.base.progress import Progress, log
from rib.base.signals import DeferredEnding
from rib.methods.base import Contrastive, FineTuning
from rib.models import device as devices
from rib.models.checkpoint import xor_compress
from rib.models.nondeterministic import refuse_layers_without_algorithm
from rib.schema.run import Run
from rib.training.divergence import refuse_infinite_state
from rib.training.good_state import GoodState
from rib.training.history import history_row
from rib.training.step import micro_batches, take_step
from rib.training.training_settings import TrainingSettings, learning_rates
from rib.training.training_state import Facts, Position, TrainingState

# timm's names; its `sgd` has Nesterov momentum.
OPTIMIZERS = {"sgd": "momentum", "adamw": "adamw", "lion": "lion"}
FUSED = ("sgd", "adamw")  # with a fused CUDA kernel
# Gives the tensors that training has changed so far, on the CPU; see `FineTuning.changed_tensors`.
ReadChanges = Callable[[], Mapping[str, Tensor]]
# Called at the start and after every epoch with the history so far, the images seen, the mean norm
# of the epoch's gradients before clipping (None at the start), a function that gives the changed
# tensors, and the device. Must change nothing, random numbers included.
AfterEpoch = Callable[[list[dict], int, float | None, ReadChanges, torch.device], None]


class Trained(NamedTuple):
    """What a training gives."""

    history: list[dict]  # [{"epoch": 1, "lr": 0.01, "loss": 0.9, ...}, ...]
    changed: Mapping[str, Tensor]  # {"fc.bias": tensor}
    # Facts of other devices on which the training ran before it was stopped, the first one first.
    earlier_devices: list[Facts]


def train(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    training: TrainingSettings,
    run: Run,
    device: torch.device,
    saved: Path | None = None,
    snapshots: Sequence[Path] = (),
    watch: AfterEpoch | None = None,
    steps: int | None = None,
) -> Trained:
    """Train a method that has been set up, resuming from the state in `saved` if there is one.

    In each epoch all images are seen once, in random batches, with a step of the optimiser for each
    batch. The last epoch may be cut short.

    Args:
        pretrained: the state dict that the changed tensors are compared with.
        run: its seed decides the order of images; the rest is for messages.
        saved: file of the training state, which is written periodically; None to save nothing.
        snapshots: paths of checkpoints at equal distances in training, the last at its end.
        watch: called at the start and after every epoch.
        steps: of the whole training; None for as many as the settings give for these images. A
            subset of a dataset may be trained on for as many steps as the whole.

    Raises:
        SystemExit: in a job that SIGINT or SIGTERM has told to end; the state was saved after the
            step that was being taken.
        DivergenceError: the loss or a trained tensor is not finite.
        UserError: the recipe or the size of micro-batches cannot be used with the method or its
            network, or CUDA has no deterministic algorithm for a layer of the network.
    """
    number_of_images = len(method.images)
    _refuse_partial_batches(method, training, number_of_images, run)
    if steps is None:
        steps = training.total_steps(number_of_images, number_of_images)
    method.steps = steps
    steps_per_epoch = training.steps_per_epoch(number_of_images)
    trainable = dict(method.trainable())
    refuse_layers_without_algorithm(run.model, method.model, trainable, device)
    _require_gradients_of(method.model, trainable)
    optimizer = make_optimizer(method, training, device)
    method.train_mode()
    devices.compiled(method.model)
    good_state = GoodState(method.model, trainable)
    state = TrainingState(saved, method.model, optimizer, trainable, method.memory, good_state.kept)
    position = state.restore()
    history = position.history
    sums = position.sums  # over the images of each step of the epoch, (4,), see `take_step`
    # The last epoch may have fewer steps than the others.
    method.step = min(position.epoch * steps_per_epoch + position.step, steps)
    rates = list(learning_rates(method.lr, steps, training))
    steps_of_snapshots = _steps_of_snapshots(steps, snapshots)
    images_seen = training.images_seen(method.step, number_of_images)
    read_changes = partial(method.changed_tensors, pretrained)
    if watch is not None:
        watch(history, images_seen, None, read_changes, device)
    progress = Progress(
        desc=f"training {run}",
        total=training.images_seen(steps, number_of_images),
        unit="image",
        done_before=images_seen,
    )
    with DeferredEnding() as ending:
        for epoch in range(position.epoch, math.ceil(steps / steps_per_epoch)):
            method.images.epoch = epoch
            batches = epoch_batches(number_of_images, training.batch_size, run.seed, epoch)
            steps_left = steps - epoch * steps_per_epoch
            batches = batches[:steps_left]
            # Steps that were taken before the training was killed are not taken again.
            batches_left = batches[len(sums) :]
            method.images.expect(micro_batches(batches_left, training.micro))
            for batch in batches_left:
                _set_learning_rate(optimizer, rates[method.step])  # in place of the peak rate
                sums.append(take_step(method, optimizer, batch, training) * len(batch))
                method.step += 1
                progress.update(len(batch))
                _save_snapshots(method, pretrained, steps_of_snapshots)
                position = Position(epoch, len(sums), history, sums)
                _end_if_asked(ending, state, position)
                if state.is_due():
                    refuse_infinite_state(method, pretrained, good_state, sums, epoch, run)
                    state.save(position)
            refuse_infinite_state(method, pretrained, good_state, sums, epoch, run)
            good_state.keep()
            sums_of_steps = torch.stack(sums)
            images_of_epoch = sum(len(batch) for batch in batches)
            means_of_epoch = (sums_of_steps.sum(dim=0) / images_of_epoch).tolist()
            loss, cross_entropy, accuracy, gradient_norm = means_of_epoch
            last_rate = rates[method.step - 1]
            history.append(history_row(epoch, last_rate, loss, cross_entropy, accuracy))
            sums = []
            if watch is not None:
                images_seen = training.images_seen(method.step, number_of_images)
                watch(history, images_seen, gradient_norm, read_changes, device)
            _end_if_asked(ending, state, Position(epoch + 1, 0, history, sums))
    progress.close()
    method.images.epoch = None
    # Cloned, since on a CPU they are the network's own.
    changed = {name: tensor.clone() for name, tensor in read_changes().items()}
    return Trained(history, changed, state.earlier_devices)


def _end_if_asked(ending: DeferredEnding, state: TrainingState, position: Position) -> None:
    """End the process if a signal has asked for it; the training can go on at this position."""
    if ending.is_asked:
        state.save(position)
        log.info(
            "told to end; saved after epoch %d, step %d, to go on from there",
            position.epoch,
            position.step,
        )
        ending.deliver()


def _refuse_partial_batches(
    method: FineTuning, training: TrainingSettings, images: int, run: Run
) -> None:
    """Raise a UserError if a method that compares the images of a batch would not see the batch.

    With fewer images than a batch has, each step would have another loss. BatchNorm normalises by
    all images that pass at once, and would count them in both passes of a batch that is split.
    """
    if isinstance(method, Contrastive) and images < training.batch_size:
        raise UserError(
            f"method {run.method} compares all images of a batch, but {run.target} has "
            f"{images} images to train on, fewer than a batch of {training.batch_size}; set "
            f"training.batch_size to {images} or less."
        )
    is_split = training.micro < min(images, training.batch_size)
    if is_split and isinstance(method, Contrastive) and method.normalises_by_batch(method.model):
        raise UserError(
            f"method {run.method} compares all images of a batch, and the BatchNorm of model "
            f"{run.model} follows the batches (batch_norm: train); "
            "set training.micro_batch_size to all, or the method's batch_norm to frozen."
        )


def _steps_of_snapshots(steps: int, snapshots: Sequence[Path]) -> dict[Path, int]:
    """The step after which each snapshot is kept: {Path("snapshot1.safetensors"): 3, ...}."""
    # At equal distances, rounded up: of 10 steps and 4 snapshots, steps 3, 5, 8 and 10.
    number_of_snapshots = len(snapshots)
    steps_of_snapshots = {}
    for number, path in enumerate(snapshots, start=1):
        # steps * number / number_of_snapshots, rounded up in whole numbers, which are exact.
        quotient, remainder = divmod(steps * number, number_of_snapshots)
        if remainder > 0:
            quotient += 1
        steps_of_snapshots[path] = quotient
    return steps_of_snapshots


def _save_snapshots(
    method: FineTuning, pretrained: Mapping[str, Tensor], steps_of_snapshots: Mapping[Path, int]
) -> None:
    """Write the checkpoints that are kept after the step that was just taken."""
    for path, step in steps_of_snapshots.items():
        if step == method.step:
            changed = method.changed_tensors(pretrained)
            safetensors.torch.save_file(xor_compress(changed, pretrained), path)


def _require_gradients_of(model: nn.Module, trainable: Mapping[str, nn.Parameter]) -> None:
    """Let those parameters of a network require gradients that are trained, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


def _set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate, times the scale that timm gives some groups (layer_decay)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def make_optimizer(
    method: FineTuning, training: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Optimiser of a method's trained parameters, which alone require gradients.

    With layer_decay, groups of parameters have an `lr_scale`, a factor of their learning rate.

    Raises:
        UserError: the recipe distinguishes layers or norms, but the method trains parameters
            outside the network.
    """
    trained = dict(method.trainable())
    model_or_parameters: nn.Module | list[nn.Parameter] = list(trained.values())
    distinguishes_parts = training.layer_decay is not None or not training.decay_norm_and_bias
    if distinguishes_parts:
        parameters_of_network = dict(method.model.named_parameters())
        if not trained.keys() <= parameters_of_network.keys():
            raise UserError(
                "a recipe with layer_decay, or decay_norm_and_bias false, treats parts of the "
                "network differently, but the method trains parameters outside of it; choose "
                "another recipe."
            )
        # timm tells the parts by the network; it takes those parameters that require gradients.
        model_or_parameters = method.model
    # Many small tensors at once: the same values as one by one, with fewer calls.
    options: dict[str, Any] = {"foreach": True}
    if device.type == "cuda" and training.optimizer in FUSED:
        options = {"fused": True}
    return create_optimizer_v2(
        model_or_parameters,
        OPTIMIZERS[training.optimizer],
        lr=method.lr,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        filter_bias_and_bn=not training.decay_norm_and_bias,
        layer_decay=training.layer_decay,
        **options,
    )


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of the images in each batch of an epoch, at random: [4 0], [2 5], [1 3] for 6 images.

    The order depends only on seed and epoch, as resuming needs; the last batch may be shorter.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[start : start + batch_size] for start in range(0, images, batch_size)]

"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and
lib/experiment.py): linear warm-up then cosine to zero, the pretrained 1000-way head kept,
cross-entropy on the class logits of the target's label space, the last step kept. The recipe
chooses the optimiser; that of the paper is SGD with momentum, without augmentation.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from rib.base.errors import UserError
from rib.base.files import read_json, write_json, write_text
from rib.base.progress import Progress, log
from rib.base.settings import replaced
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TRAIN
from rib.data.subsets import first_images, subset
from rib.data.view import DatasetFiles, load_dataset, load_proxy
from rib.evaluation.score import score
from rib.methods.base import BATCH_NORM, FineTuning, Task, load_algorithm
from rib.models import device as devices
from rib.models.augmentation import Augmentation, recipe_transform
from rib.models.checkpoint import apply, xor_compress
from rib.models.class_logits import class_logits
from rib.models.images import Images
from rib.models.network import Classifier, load
from rib.models.nondeterministic import refuse_layers_without_algorithm
from rib.models.state import network_in_state
from rib.models.text import Text, load_text
from rib.training.good_state import GoodState
from rib.training.optimizer import make_optimizer
from rib.training.settings import FineTuningSettings, TrainingSettings, learning_rates
from rib.training.training_state import TrainingState

FIT_IMAGES = 5000  # on which the fit is measured, at most
FIT_BATCH = 64
ENTRY_OF_RATE = "the method's or the family's entry"  # which has the learning rate
HISTORY = ("epoch", "lr", "loss", "cross_entropy", "accuracy")

# Gives the tensors that training has changed so far, on the CPU; see `FineTuning.changed_tensors`.
ReadChanges = Callable[[], Mapping[str, Tensor]]
# Called at the start and after every epoch with the history so far, the images seen, the mean norm
# of the epoch's gradients before clipping (None at the start), a function that gives the changed
# tensors, and the device. Must change nothing, random numbers included.
Watch = Callable[[list[dict], int, float | None, ReadChanges, torch.device], None]


@dataclass(frozen=True)
class FineTuningInputs:
    """Files that a training reads."""

    model_folder: Path  # output of the convert_model or pretrain_model job
    target: DatasetFiles
    reference: DatasetFiles | None = None  # the pretraining proxy, if the method uses it
    # checkpoint of the method that this one starts from, by method; empty for the pretrained model
    start: Mapping[str, Path] = field(default_factory=dict)
    text_folder: Path | None = None  # of the model's text tower, if the method uses it
    # the Fisher information of the pretrained model on the proxy, if a job of its own has computed
    # it (see rib.evaluation.fisher)
    shared_fisher: Path | None = None


@dataclass(frozen=True)
class FineTuningOutput:
    """Files that a training writes."""

    checkpoint: Path  # .safetensors, in the forms of rib.models.checkpoint
    # JSON: the device, the label space digest, the number of training images, steps and images
    # seen, and the fit: the accuracy on the training images (at most 5,000) in evaluation mode,
    # 0 to 1
    manifest: Path
    saved: Path  # the training state, written periodically, from which a killed training resumes
    rescue: Path  # if training diverges, the checkpoint after the last finite epoch
    history: Path | None = None  # CSV, see `write_history`; None if nothing is trained here
    # checkpoints at equal distances in training, the last at its end
    snapshots: Sequence[Path] = ()


def finetune(
    *,
    run: Run,
    inputs: FineTuningInputs,
    settings: FineTuningSettings,
    output: FineTuningOutput,
    watch: Watch | None = None,
) -> None:
    """Train, then write the checkpoint and the history.

    Raises:
        UserError: the loss, a trained tensor or, at the end, a logit of a training image is not
            finite, or the method can't train this network or lacks an input.
    """
    device = devices.start(settings.compute)
    torch.manual_seed(run.seed)
    method = load_algorithm(settings.algorithm, settings.settings, run.method)
    model, pretrained, preprocessing = load_start(
        inputs.model_folder, method, inputs.start, run, device
    )
    whole_target = load_dataset(inputs.target, settings.view, TRAIN)
    dataset = subset(whole_target, run.size, run.seed)
    number_of_images = len(dataset.labels)
    images_of_target = Images(dataset, preprocessing, device)
    training = settings.training
    if training is not None and training.augmentation:
        side = images_of_target.side
        transform = recipe_transform(training.augmentation, side)
        images_of_target.augmentation = Augmentation(transform, run.seed)
    task = Task(
        model=model,
        target=images_of_target,
        reference=_images_of_proxy(inputs, settings, preprocessing, device),
        seed=run.seed,
        text=_text(inputs, device),
        fisher=_shared_fisher(inputs),
    )
    set_up(method, task, run, settings.compute.gradient_checkpointing)
    changed: Mapping[str, Tensor]
    history: list[dict] = []
    if training is None:
        steps = 0
        images_seen = 0
        changed = method.changed_tensors(pretrained)
    else:
        steps = training.total_steps(number_of_images, len(whole_target.labels))
        images_seen = training.images_seen(steps, number_of_images)
        with rescued(output.saved, output.rescue, ENTRY_OF_RATE):
            history, changed = train(
                method,
                pretrained,
                replaced(training, epochs=None, steps=steps),
                run,
                device,
                saved=output.saved,
                snapshots=output.snapshots,
                watch=watch,
            )
        assert output.history is not None  # of a training
        write_history(history, output.history)
    if not changed:
        log.warning("%s: the weights equal the pretrained ones", run)
    safetensors.torch.save_file(xor_compress(changed, pretrained), output.checkpoint)
    try:
        fit = measure_fit(run, inputs.model_folder, output.checkpoint, dataset, device)
    except InfiniteLogitsError as error:
        logit = "a logit of a training image"
        if training is None:
            raise UserError(f"{run}: {logit} is not finite; don't use these weights.") from error
        with rescued(output.saved, output.rescue, ENTRY_OF_RATE):
            raise DivergenceError(run, logit, method.lr, len(history), changed) from error
    facts = {
        "device": device.type,
        "label_space": dataset.space.digest,
        "train_images": number_of_images,
        "steps": steps,
        "images": images_seen,
        "fit": fit,
        **method.facts,
    }
    write_json(output.manifest, facts)


def _images_of_proxy(
    inputs: FineTuningInputs,
    settings: FineTuningSettings,
    preprocessing: Mapping,
    device: torch.device,
) -> Images | None:
    """The pretraining proxy, images that stand in for the pretraining data, if a method uses it."""
    if inputs.reference is None:
        return None
    proxy = load_proxy(inputs.reference, settings.view)
    return Images(proxy, preprocessing, device)


def _text(inputs: FineTuningInputs, device: torch.device) -> Text | None:
    """The text tower of the model, if the method uses it."""
    if inputs.text_folder is None:
        return None
    return load_text(inputs.model_folder, inputs.text_folder, device)


def _shared_fisher(inputs: FineTuningInputs) -> dict[str, Tensor] | None:
    """The Fisher information of the pretrained model, if a job of its own has computed it."""
    if inputs.shared_fisher is None:
        return None
    return safetensors.torch.load_file(inputs.shared_fisher)


def load_start(
    model_folder: Path,
    method: FineTuning,
    start: Mapping[str, Path],
    run: Run,
    device: torch.device,
) -> tuple[Classifier, dict[str, Tensor], dict]:
    """The network that training starts from, the pretrained state dict, and the preprocessing.

    Args:
        method: has the rates of dropout with which the network is built.
        start: the checkpoint of the method that this one starts from, by method; empty for the
            pretrained model.

    Raises:
        UserError: the checkpoint to start from has a padding prompt.
    """
    model, facts = load(model_folder, device, method.dropout, method.drop_path)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if start:
        started = apply(model, dict.fromkeys(start, 1.0), start)
        if started is not model:
            (method_of_start,) = start
            raise UserError(
                f"method {run.method} can't start from '{method_of_start}', which trains a prompt."
            )
    return model, pretrained, facts["preprocessing"]


def set_up(method: FineTuning, task: Task, run: Run, checkpointing: bool) -> None:
    """Set up a method, with gradient checkpointing if asked.

    Raises:
        UserError: the method or the network can't be used so.
    """
    try:
        if checkpointing:
            checkpoint_gradients(task.model, method)
        method.setup(task)
    except ValueError as error:
        raise UserError(f"method {run.method} on model {run.model}: {error}.") from error


def checkpoint_gradients(model: nn.Module, method: FineTuning) -> None:
    """Switch on the network's own gradient checkpointing.

    The backward pass then computes activations again.

    Raises:
        ValueError: the network has none, or the method would update BatchNorm statistics in both
            passes.
    """
    has_batch_norm = any(isinstance(layer, BATCH_NORM) for layer in model.modules())
    if method.batch_norm == "train" and has_batch_norm:
        raise ValueError(
            "BatchNorm statistics would be updated twice; "
            "set compute.gradient_checkpointing to false"
        )
    # The network is one of timm, or has open_clip's image tower as `visual`.
    network: Any = getattr(model, "visual", model)
    with suppress(AttributeError, AssertionError):  # of a network without this method
        network.set_grad_checkpointing()
    if not any(getattr(layer, "grad_checkpointing", False) for layer in model.modules()):
        raise ValueError(
            "the network has no gradient checkpointing; set compute.gradient_checkpointing to false"
        )


class InfiniteLogitsError(Exception):
    """A network gives a logit that is infinite or not a number.

    Its weights may be finite, but so large that its layers overflow.
    """


def measure_fit(
    run: Run, model_folder: Path, checkpoint: Path, dataset: PreparedDataset, device: torch.device
) -> float:
    """Accuracy of the stored checkpoint on the training images, as it is evaluated.

    It is 0 to 1, of at most 5,000 images.

    Raises:
        InfiniteLogitsError: a logit of one of these images is not finite.
    """
    images = first_images(dataset, FIT_IMAGES)
    scores = scores_of(checkpoint, model_folder, images, FIT_BATCH, device, f"fit of {run}")
    if not scores["energy"].isfinite().all():
        raise InfiniteLogitsError
    fit = _accuracy(scores)
    log.info("%s: %.1f %% of %d training images are correct", run, 100 * fit, len(images.labels))
    return round(fit, 6)


def accuracy_of(
    checkpoint: Path,
    model_folder: Path,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    device: torch.device,
    label: str,
) -> float:
    """Accuracy of a stored checkpoint on images, as it is evaluated: 0 to 1; see `scores_of`."""
    scores = scores_of(checkpoint, model_folder, dataset, evaluation_batch_size, device, label)
    return _accuracy(scores)


def _accuracy(scores: Mapping[str, Tensor]) -> float:
    """Share of images with a right answer, 0 to 1, from the scores of a network."""
    return (scores["rank"] == 0).float().mean().item()


def scores_of(
    checkpoint: Path,
    model_folder: Path,
    dataset: PreparedDataset,
    evaluation_batch_size: int,
    device: torch.device,
    label: str,
) -> dict[str, Tensor]:
    """Scores of images by a stored checkpoint, as it is evaluated; see rib.evaluation.score.

    Args:
        evaluation_batch_size: images per forward pass.
        label: that of the progress bar.
    """
    preprocessing = read_json(model_folder / "model.json")["preprocessing"]
    inputs = Images(dataset, preprocessing, device)
    # The state is this checkpoint alone, whatever its name.
    weights = {"checkpoint": 1.0}
    network = network_in_state(model_folder, weights, {"checkpoint": checkpoint}, inputs)
    progress = Progress(desc=label, total=len(inputs), unit="image")
    (scores,) = score([network], inputs, dataset, evaluation_batch_size, progress)
    progress.close()
    return scores


def write_history(history: list[dict], path: Path) -> None:
    """Write one row per epoch, all or none.

    The columns are epoch, lr (of the last step), and mean loss, cross-entropy and accuracy.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())


class DivergenceError(Exception):
    """Training diverged: it led to a value that is infinite or not a number.

    Attributes:
        finite_epochs: the number of epochs that were completed before, all with finite values.
        finite_changes: the tensors that training had changed, as they were after these epochs.
    """

    def __init__(
        self,
        run: Run,
        infinite_value: str,
        lr: float,
        finite_epochs: int,
        finite_changes: Mapping[str, Tensor],
    ):
        """Describe the divergence, and keep what `rescued` stores.

        Args:
            infinite_value: what is not finite, for the message: `the loss at epoch 2, step 9`.
            lr: the peak learning rate.
            finite_epochs, finite_changes: see the class.
        """
        self.finite_epochs = finite_epochs
        self.finite_changes = finite_changes
        super().__init__(
            f"training diverged: model {run.model}, method {run.method}, target {run.target}: "
            f"{infinite_value} is not finite with the peak learning rate {lr:g}"
        )


@contextmanager
def rescued(saved: Path, rescue: Path, entry: str) -> Iterator[None]:
    """If training diverges, write the state after the last finite epoch to `rescue`.

    Args:
        saved: the training state, which is deleted.
        entry: the catalogue's entry that has the learning rate, for the message.

    Raises:
        UserError: training diverged.
    """
    try:
        yield
    except DivergenceError as error:
        saved.unlink(missing_ok=True)  # resuming would diverge again
        what_is_kept = "no epoch was finished"
        if error.finite_epochs:
            rescue.parent.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(dict(error.finite_changes), rescue)
            what_is_kept = f"the state after epoch {error.finite_epochs} is kept in {rescue}"
        raise UserError(f"{error}; {what_is_kept}; lower lr in {entry}.") from error


def train(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    training: TrainingSettings,
    run: Run,
    device: torch.device,
    saved: Path | None = None,
    snapshots: Sequence[Path] = (),
    watch: Watch | None = None,
) -> tuple[list[dict], Mapping[str, Tensor]]:
    """Train a method that has been set up, resuming from the state in `saved` if there is one.

    In each epoch all images are seen once, in random batches, with a step of the optimiser for each
    batch. The last epoch may be cut short.

    Args:
        pretrained: the state dict from which changes are told.
        run: of which the seed counts; the rest is for messages.
        saved: file of the training state, which is written periodically; None to save nothing.
        snapshots: paths of checkpoints at equal distances in training, the last at its end.
        watch: called at the start and after every epoch.

    Returns:
        One history row per epoch, and the changed tensors.

    Raises:
        DivergenceError: the loss or a trained tensor is not finite.
        UserError: the recipe or the size of micro-batches cannot be used with the method, or CUDA
            has no deterministic algorithm for a layer of the network.
    """
    images = len(method.images)
    _refuse_partial_batches(method, training, images, run)
    steps = training.total_steps(images, images)
    method.steps = steps
    steps_per_epoch = training.steps_per_epoch(images)
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
    sums = position.sums  # over the images of each step of the epoch, (4,), see `_take_step`
    method.step = position.epoch * steps_per_epoch + position.step
    rates = list(learning_rates(method.lr, steps, training))
    steps_of_snapshots = _steps_of_snapshots(steps, snapshots)
    images_seen = training.images_seen(method.step, images)
    read_changes = partial(method.changed_tensors, pretrained)
    if watch is not None:
        watch(history, images_seen, None, read_changes, device)
    progress = Progress(
        desc=f"training {run}",
        total=training.images_seen(steps, images),
        unit="image",
        done_before=images_seen,
    )
    for epoch in range(position.epoch, math.ceil(steps / steps_per_epoch)):
        method.images.epoch = epoch
        batches = epoch_batches(images, training.batch_size, run.seed, epoch)
        steps_left = steps - epoch * steps_per_epoch
        batches = batches[:steps_left]
        # Steps that were taken before the training was killed are not taken again.
        batches_left = batches[len(sums) :]
        method.images.expect(_micro_batches(batches_left, training.micro))
        for batch in batches_left:
            _set_learning_rate(optimizer, rates[method.step])
            sums.append(_take_step(method, optimizer, batch, training) * len(batch))
            method.step += 1
            progress.update(len(batch))
            _save_snapshots(method, pretrained, steps_of_snapshots)
            state.save_if_due(epoch, len(sums), history, sums)
        sums_of_steps = torch.stack(sums)
        _refuse_infinite_state(method, pretrained, good_state, sums_of_steps[:, :-1], epoch, run)
        good_state.keep()
        images_of_epoch = sum(len(batch) for batch in batches)
        means_of_epoch = (sums_of_steps.sum(dim=0) / images_of_epoch).tolist()
        loss, cross_entropy, accuracy, gradient_norm = means_of_epoch
        last_rate = rates[method.step - 1]
        history.append(_history_row(epoch, last_rate, loss, cross_entropy, accuracy))
        sums = []
        if watch is not None:
            images_seen = training.images_seen(method.step, images)
            watch(history, images_seen, gradient_norm, read_changes, device)
    progress.close()
    method.images.epoch = None
    # Cloned, since on a CPU they are the network's own.
    changed = {name: tensor.clone() for name, tensor in read_changes().items()}
    return history, changed


def _history_row(
    epoch: int, rate: float, loss: float, cross_entropy: float, accuracy: float
) -> dict:
    """The row of an epoch in the history; its keys are HISTORY.

    Args:
        epoch: counted from 0.
        rate: learning rate of its last step.
        loss, cross_entropy, accuracy: means over its images.
    """
    return {
        "epoch": epoch + 1,
        "lr": rate,
        "loss": loss,
        "cross_entropy": cross_entropy,
        "accuracy": accuracy,
    }


def _refuse_partial_batches(
    method: FineTuning, training: TrainingSettings, images: int, run: Run
) -> None:
    """Raise a UserError if a method that compares all images of a batch would see parts of it."""
    if method.whole_batches and training.micro < min(images, training.batch_size):
        raise UserError(
            f"method {run.method} compares all images of a batch; "
            "set training.micro_batch_size to all."
        )


def _steps_of_snapshots(steps: int, snapshots: Sequence[Path]) -> dict[Path, int]:
    """The step after which each snapshot is kept, counted from 1.

    They are at equal distances, rounded up: of 10 steps and 4 snapshots, steps 3, 5, 8 and 10.
    """
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
    """Set the learning rate of all parameters, times the scale that some groups have."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def _refuse_infinite_state(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    good_state: GoodState,
    sums: Tensor,
    epoch: int,
    run: Run,
) -> None:
    """Raise a DivergenceError if a value is not finite after an epoch.

    Values are checked only once per epoch, to avoid a GPU synchronisation at every step, and all
    together on the device. If one is not finite, the training goes back to the last good state.

    Args:
        good_state: as it was kept after the epoch before.
        sums: loss, cross-entropy and accuracy of each step of the epoch, (steps, 3), summed over
            its images.
        epoch: that has just ended, counted from 0, so also the number of epochs before it.
    """
    is_finite_step = sums.isfinite().all(dim=1)
    if is_finite_step.all() & good_state.is_finite():
        return
    if is_finite_step.all():  # the last step's loss was finite, but its update is not
        name = good_state.first_infinite_tensor()
        infinite_value = f"'{name}' after step {method.step}"
    else:
        first_step_of_epoch = method.step - len(sums) + 1
        first_infinite_step = first_step_of_epoch + int((~is_finite_step).nonzero()[0])
        infinite_value = f"the loss at epoch {epoch + 1}, step {first_infinite_step}"
    finite_changes: Mapping[str, Tensor] = {}
    if epoch > 0:
        good_state.restore()
        finite_changes = method.changed_tensors(pretrained)
    raise DivergenceError(run, infinite_value, method.lr, epoch, finite_changes)


class BatchMeans(NamedTuple):
    """What is computed of a batch or a part of it; scalars, means over its images."""

    loss: Tensor  # which is minimised, with its gradient
    cross_entropy: Tensor  # with label smoothing, with its gradient
    accuracy: Tensor  # 0 to 1


def _compute_loss(method: FineTuning, rows: np.ndarray, training: TrainingSettings) -> BatchMeans:
    """Pass the given rows of the target through the network; gradients are not computed yet."""
    images = method.images
    labels = images.labels_of(rows)  # before the forward pass, so that nothing waits for it
    with devices.autocast(method.images.device):
        logits = method.logits(rows)
    logits = logits.float()
    scores = class_logits(logits, images.members)
    cross_entropy = F.cross_entropy(scores, labels, label_smoothing=training.label_smoothing)
    loss = method.error(rows, cross_entropy) + method.penalty(rows, logits)
    accuracy = (scores.detach().argmax(dim=1) == labels).float().mean()
    return BatchMeans(loss, cross_entropy, accuracy)


def _take_step(
    method: FineTuning, optimizer: Optimizer, batch: np.ndarray, training: TrainingSettings
) -> Tensor:
    """Take one step on the given rows of the target.

    Gradients are accumulated over micro-batches. Their sum is the gradient of the batch, since
    losses and penalties are means over images or don't depend on them.

    Returns:
        Loss, cross-entropy (with label smoothing) and accuracy of the batch before the step, and
        the norm of its gradient before clipping: (4,).
    """
    optimizer.zero_grad()
    means = torch.zeros(3, dtype=torch.float64, device=method.images.device)
    for rows in _micro_batches([batch], training.micro):
        loss, cross_entropy, accuracy = _compute_loss(method, rows, training)
        share = len(rows) / len(batch)
        if share == 1:
            loss.backward()
        else:
            (loss * share).backward()
        means += share * torch.stack([loss.detach(), cross_entropy.detach(), accuracy])
    parameters = _parameters_of(optimizer)
    give_gradients_strides_of(parameters)
    norm = _clip_gradients(parameters, training.clip_norm)
    method.update(optimizer)
    return torch.cat([means, norm.to(means).view(1)])


def _micro_batches(batches: Iterable[np.ndarray], size: int) -> list[np.ndarray]:
    """The parts of batches that are passed through the network at once: [4 0] and [2] of [4 0 2].

    Args:
        size: images in a part; the last part of each batch may be smaller.
    """
    parts = []
    for batch in batches:
        for start in range(0, len(batch), size):
            parts.append(batch[start : start + size])
    return parts


def _parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """The parameters that an optimiser trains."""
    parameters: list[nn.Parameter] = []
    for group in optimizer.param_groups:
        parameters.extend(group["params"])
    return parameters


def give_gradients_strides_of(parameters: Iterable[nn.Parameter]) -> None:
    """Lay gradients out in memory as their parameters are, in place.

    CUDA's fused optimisers refuse others (github.com/pytorch/pytorch/issues/106951). The gradient
    of a class token is one in a batch of a single image: it is a slice of that of all tokens.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(gradient)


def _clip_gradients(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor:
    """Clip the gradient of all trained parameters to a maximum norm, if there is one.

    Returns:
        The norm of the gradient before, a scalar.
    """
    if clip_norm is not None:
        return nn.utils.clip_grad_norm_(parameters, clip_norm)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of the images in each batch of an epoch, at random: [4 0], [2 5], [1 3] for 6 images.

    The permutation depends only on seed and epoch; the last batch may be shorter.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[start : start + batch_size] for start in range(0, images, batch_size)]

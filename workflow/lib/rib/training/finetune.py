"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and lib/experiment.py): linear warm-up
then cosine to zero, the pretrained 1000-way head kept, cross-entropy on the class logits of the target's label space,
the last step kept. The recipe chooses the optimiser; that of the paper is SGD with momentum, without augmentation.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from rib.base.errors import UserError
from rib.base.files import read_json, write_json, write_text
from rib.base.progress import Progress, log
from rib.config.run import Run
from rib.data.prepared import PreparedDataset
from rib.data.splits import TRAIN
from rib.data.subsets import first_images, subset
from rib.data.view import DatasetFiles, DatasetView, load_dataset, load_proxy
from rib.evaluation.score import correct
from rib.methods import load_algorithm
from rib.methods.base import BATCH_NORM, FineTuning, Images, Task
from rib.models import device as devices
from rib.models.augmentation import Augmentation
from rib.models.checkpoint import apply, xor_compress
from rib.models.class_logits import class_logits
from rib.models.inputs import Inputs
from rib.models.network import load
from rib.models.state import network_in_state
from rib.models.text import load_text
from rib.training.optimizer import make_optimizer
from rib.training.settings import TrainingSettings, learning_rates
from rib.training.training_state import TrainingState

FIT_IMAGES, FIT_BATCH = 5000, 64
HISTORY = ("epoch", "lr", "loss", "cross_entropy", "accuracy")

# Called at the start and after every epoch with the history so far, the images seen, the mean norm of the epoch's gradients
# before clipping (None at the start), the changed tensors and the device. Must change nothing, random numbers included.
Watch = Callable[[list[dict], int, float | None, Mapping[str, Tensor], torch.device], None]


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
    training: TrainingSettings | None,
    compute: devices.ComputeSettings,
    rescue: Path,
    saved: Path,
    checkpoint: Path,
    manifest: Path,
    history: Path | None = None,
    snapshots: Sequence[Path] = (),
    text_folder: Path | None = None,
    shared_fisher: Path | None = None,
    watch: Watch | None = None,
) -> None:
    """Train, then write the checkpoint and the history.

    Raises a UserError if the loss or a trained tensor is not finite, or the method can't train this network or lacks an input.

    Args (`snapshots` and `watch` are those of `train`):
        reference, text_folder: the pretraining proxy and the folder of the model's text tower, if the method uses them.
        shared_fisher: the Fisher information of the pretrained model on the proxy, if a job of its own has computed it (see
            rib.evaluation.fisher).
        start: checkpoint of the method that this one starts from, by method; empty for the pretrained model.
        training, history: None if the method has weights that were trained elsewhere.
        saved, rescue: the training state, written periodically; if training diverges, that after the last finite epoch.
        checkpoint: written as .safetensors, in the forms of rib.models.checkpoint.
        manifest: written as JSON: the device, the label space digest, the number of training images, steps and images
            seen, and the fit: the accuracy on the training images (at most 5,000) in evaluation mode, 0 to 1.
    """
    device = devices.start(compute)
    torch.manual_seed(run.seed)
    method = load_algorithm(algorithm, settings)
    model, pretrained, preprocessing = load_start(model_folder, method, start, run, device)
    whole = load_dataset(target, view, TRAIN)
    images = subset(whole, run.size)
    proxy = load_proxy(reference, view) if reference else None
    seen = [dataset and Images.of(dataset, preprocessing, device) for dataset in (images, proxy)]
    if training and training.augmentation:
        seen[0].inputs.augmentation = Augmentation(
            training.augmentation, images.images[[0]].shape[1], run.seed
        )
    n = len(images.labels)
    steps = training.total_steps(n, len(whole.labels)) if training else 0
    text = text_folder and load_text(model_folder, text_folder, device)
    information = safetensors.torch.load_file(shared_fisher) if shared_fisher else None
    set_up(
        method, Task(model, *seen, run.seed, text, information), run, compute.gradient_checkpointing
    )
    if training:
        with rescued(saved, rescue, "the method's or the family's entry"):
            rows, changed = train(
                method, pretrained, training, run, device, saved, snapshots, steps, watch
            )
        write_history(rows, history)
    else:
        changed = method.state_delta(pretrained)
    if not changed:
        log.warning("%s: the weights equal the pretrained ones", run)
    safetensors.torch.save_file(xor_compress(changed, pretrained), checkpoint)
    found = {"train_images": n, "steps": steps, "images": steps and training.images_seen(steps, n)}
    found["fit"] = measure_fit(run, model_folder, checkpoint, images, device)
    write_json(
        manifest,
        {"device": device.type, "label_space": images.space.digest, **found, **method.facts},
    )


def load_start(
    model_folder: Path,
    method: FineTuning,
    start: Mapping[str, Path],
    run: Run,
    device: torch.device,
) -> tuple[nn.Module, dict[str, Tensor], dict]:
    """The network that training starts from, the pretrained state dict, and the preprocessing; see `finetune`."""
    model, facts = load(model_folder, device, method.dropout, method.drop_path)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if start and apply(model, dict.fromkeys(start, 1.0), start) is not model:
        raise UserError(
            f"method {run.method} can't start from '{next(iter(start))}', which trains a prompt."
        )
    return model, pretrained, facts["preprocessing"]


def set_up(method: FineTuning, task: Task, run: Run, checkpointing: bool) -> None:
    """Set up a method, with gradient checkpointing if asked; a UserError if it or the network can't be used so."""
    try:
        if checkpointing:
            checkpoint_gradients(task.model, method)
        method.setup(task)
    except ValueError as error:
        raise UserError(f"method {run.method} on model {run.model}: {error}.") from error


def checkpoint_gradients(model: nn.Module, method: FineTuning) -> None:
    """Switch on the network's own gradient checkpointing: the backward pass computes activations again.

    Raises a ValueError if it has none, or the method would update BatchNorm statistics in both passes.
    """
    if method.batch_norm == "train" and any(
        isinstance(layer, BATCH_NORM) for layer in model.modules()
    ):
        raise ValueError(
            "BatchNorm statistics would be updated twice; set compute.gradient_checkpointing to false"
        )
    with suppress(AttributeError, AssertionError):
        getattr(model, "visual", model).set_grad_checkpointing()
    if not any(getattr(layer, "grad_checkpointing", False) for layer in model.modules()):
        raise ValueError(
            "the network has no gradient checkpointing; set compute.gradient_checkpointing to false"
        )


def measure_fit(
    run: Run, model_folder: Path, checkpoint: Path, images: PreparedDataset, device: torch.device
) -> float:
    """Accuracy of the stored checkpoint on the training images, as it is evaluated: 0 to 1, of at most 5,000 images."""
    part = first_images(images, FIT_IMAGES)
    fit = accuracy_of(checkpoint, model_folder, part, FIT_BATCH, device, f"fit of {run}")
    log.info("%s: %.1f %% of %d training images are correct", run, 100 * fit, len(part.labels))
    return round(fit, 6)


def accuracy_of(
    checkpoint: Path,
    model_folder: Path,
    images: PreparedDataset,
    batch_size: int,
    device: torch.device,
    what: str,
) -> float:
    """Accuracy of a stored checkpoint on images, as it is evaluated: 0 to 1; `what` labels the progress bar."""
    inputs = Inputs.of(images, read_json(model_folder / "model.json")["preprocessing"], device)
    network = network_in_state(model_folder, {"own": 1.0}, {"own": checkpoint}, inputs)
    return correct(network, inputs, images, batch_size, what).float().mean().item()


def write_history(rows: list[dict], path: Path) -> None:
    """Write one row per epoch, all or none: epoch, lr (of the last step), and mean loss, cross-entropy and accuracy."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class DivergenceError(Exception):
    """Training led to a value that is not finite; `good` are the changes after the finite epochs before it."""

    def __init__(self, run: Run, place: str, lr: float, epochs: int, good: Mapping[str, Tensor]):
        self.epochs, self.good = epochs, good
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
    steps: int | None = None,
    watch: Watch | None = None,
) -> tuple[list[dict], dict[str, Tensor]]:
    """Train a method that has been set up, resuming from the state in `saved` if there is one.

    `steps` is None for that number on these images; the last epoch may be cut short. `snapshots` are paths of checkpoints
    at equal distances in training, the last at its end. `watch` is called at the start and after every epoch. Returns one
    history row per epoch, and the changed tensors. Raises a DivergenceError if the loss or a trained tensor is not finite,
    and a UserError if the recipe or the size of micro-batches cannot be used with the method.
    """
    n = len(method.inputs)
    if method.whole_batches and training.micro < min(n, training.batch_size):
        raise UserError(
            f"method {run.method} compares all images of a batch; set training.micro_batch_size to all."
        )
    steps = method.steps = steps or training.total_steps(n, n)
    of_epoch = training.steps_per_epoch(n)
    trainable = dict(method.trainable())
    for name, parameter in method.model.named_parameters():
        parameter.requires_grad_(name in trainable)
    optimizer = make_optimizer(method, training, device)
    method.train_mode()
    devices.compiled(method.model)
    state = TrainingState(saved, method.model, optimizer, trainable, method.memory)
    first, skipped, rows, sums, good = state.restore()
    method.step = first * of_epoch + skipped
    rates = list(learning_rates(method.lr, steps, training))
    kept = [
        (-(-steps * place // len(snapshots)), path) for place, path in enumerate(snapshots, start=1)
    ]
    watch = watch or (lambda *progress: None)
    watch(rows, training.images_seen(method.step, n), None, good, device)
    progress = Progress(desc=f"training {run}", total=training.images_seen(steps, n), unit="image")
    progress.update(training.images_seen(method.step, n))
    for epoch in range(first, math.ceil(steps / of_epoch)):
        method.inputs.epoch = epoch
        batches = epoch_batches(n, training.batch_size, run.seed, epoch)[: steps - epoch * of_epoch]
        for batch in batches[len(sums) :]:
            for group in optimizer.param_groups:
                group["lr"] = rates[method.step] * group.get("lr_scale", 1.0)
            sums.append(_step(method, optimizer, batch, training) * len(batch))
            method.step += 1
            progress.update(len(batch))
            for path in [path for step, path in kept if step == method.step]:
                safetensors.torch.save_file(
                    xor_compress(method.state_delta(pretrained), pretrained), path
                )
            state.save_if_due(epoch, len(sums), rows, sums, good)
        good = _finite_changes(method, pretrained, torch.stack(sums)[:, :-1], epoch, run, good)
        *means, norm = (torch.stack(sums).sum(dim=0) / sum(map(len, batches))).tolist()
        rows.append(dict(zip(HISTORY, (epoch + 1, rates[method.step - 1], *means), strict=True)))
        sums = []
        watch(rows, training.images_seen(method.step, n), norm, good, device)
    progress.close()
    method.inputs.epoch = None
    return rows, good


def _finite_changes(
    method: FineTuning,
    pretrained: Mapping[str, Tensor],
    sums: Tensor,
    epoch: int,
    run: Run,
    good: Mapping,
) -> dict[str, Tensor]:
    """Changed tensors after an epoch; checked only once per epoch, to avoid a GPU synchronisation at every step."""
    if not sums.isfinite().all():
        step = method.step - len(sums) + int((~sums.isfinite()).any(dim=1).nonzero()[0]) + 1
        raise DivergenceError(
            run, f"the loss at epoch {epoch + 1}, step {step}", method.lr, epoch, good
        )
    changed = method.state_delta(pretrained)
    for name, tensor in changed.items():
        if not tensor.isfinite().all():  # the last step's loss was finite, but its update is not
            raise DivergenceError(run, f"'{name}' after step {method.step}", method.lr, epoch, good)
    return {name: tensor.clone() for name, tensor in changed.items()}


def _step(
    method: FineTuning, optimizer: Optimizer, batch: np.ndarray, training: TrainingSettings
) -> Tensor:
    """Take one step; return loss, cross-entropy (with label smoothing) and accuracy of the batch before it, and the norm
    of its gradient before clipping: (4,).

    Gradients are accumulated over micro-batches. Their sum is the gradient of the batch, since losses and penalties are
    means over images or don't depend on them.
    """
    target, device = method.task.target, method.inputs.device
    optimizer.zero_grad()
    total = torch.zeros(3, dtype=torch.float64, device=device)
    for start in range(0, len(batch), training.micro):
        rows = batch[start : start + training.micro]
        with devices.autocast(device):
            logits = method.logits(rows)
        logits, own = logits.float(), target.labels[rows]
        scores = class_logits(logits, target.members)
        cross_entropy = F.cross_entropy(scores, own, label_smoothing=training.label_smoothing)
        loss = method.error(rows, cross_entropy) + method.penalty(rows, logits)
        share = len(rows) / len(batch)
        (loss if share == 1 else loss * share).backward()
        right = (scores.detach().argmax(dim=1) == own).float().mean()
        total += share * torch.stack([loss.detach(), cross_entropy.detach(), right])
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if training.clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(trained, training.clip_norm)
    else:
        norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in trained if parameter.grad is not None]
        )
    method.update(optimizer)
    return torch.cat([total, norm.to(total).view(1)])


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows of each batch of an epoch; the permutation depends only on seed and epoch, the last batch may be shorter."""
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[start : start + batch_size] for start in range(0, images, batch_size)]

"""Fine-tuning of one pretrained model on one target with one method.

The protocol is the paper's (arXiv 2410.21582, section 3; released code, main.py and
lib/experiment.py): linear warm-up then cosine to zero, the pretrained 1000-way head kept,
cross-entropy on the class logits of the target's label space, the last step kept. The paper's
recipe is SGD with momentum, without augmentation; other recipes may differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rib.base.errors import PermanentError, UserError
from rib.base.files import write_json
from rib.base.progress import log
from rib.data.dataset import PreparedDataset
from rib.data.splits import TRAIN
from rib.data.subsets import subset
from rib.data.view import DatasetFiles, load_dataset, load_proxy
from rib.methods.base import FineTuning, Task, load_algorithm, refuse_other_facts
from rib.models import device as devices
from rib.models.augmentation import Augmentation, recipe_transform
from rib.models.checkpoint import apply, xor_compress
from rib.models.images import Images
from rib.models.network import Classifier, load
from rib.models.text import load_text
from rib.schema.run import Run
from rib.training.divergence import DivergenceError, rescued
from rib.training.fit import InfiniteLogitsError, images_of_fit, measure_fit
from rib.training.gpu_memory import explained_lack_of_memory, setting_of_training_memory
from rib.training.gradient_checkpointing import checkpoint_gradients
from rib.training.history import write_history
from rib.training.loop import AfterEpoch, train
from rib.training.training_settings import FineTuningSettings, TrainingSettings

ENTRY_OF_RATE = "the method's or the family's entry"  # place of the learning rate


def finetune(
    *,
    run: Run,
    model_folder: Path,
    start: Mapping[str, Path],
    target: DatasetFiles,
    reference: DatasetFiles | None = None,
    text_folder: Path | None = None,
    shared_fisher: Path | None = None,
    settings: FineTuningSettings,
    checkpoint: Path,
    history: Path | None = None,
    snapshots: Sequence[Path] = (),
    manifest: Path,
    saved: Path,
    rescue: Path,
    watch: AfterEpoch | None = None,
) -> None:
    """Train a run, or import weights that were trained elsewhere; store what has changed.

    Args:
        run: `run.size` gives the number of training images, `run.seed` seeds all random numbers.
        model_folder: the pretrained model.
        start: checkpoint that training starts from, such as {"linear_probe": Path(
            "results/.../checkpoint.safetensors")}; empty for the pretrained model.
        reference: the pretraining proxy (images that stand in for the pretraining data), if the
            method uses it.
        text_folder: the model's text tower, if the method uses it.
        shared_fisher: .safetensors file with the pretrained model's Fisher information on the
            proxy, if an earlier job has computed it.
        checkpoint: .safetensors file to write, in the format of rib.models.checkpoint.
        history: CSV file to write, a row per epoch; None if nothing is trained here.
        snapshots: checkpoints to write at equal distances; the last, at the end, is `checkpoint`.
        manifest: JSON file to write: {"device": "cpu", "label_space": "9e362fcf05878fda",
            "train_images": 20, "steps": 6, "images": 40, "fit": 0.05, ...}. `images` are those that
            training has seen, with repetitions; the fit is the accuracy on training images.
        saved: training state, written periodically, from which a killed training resumes.
        rescue: checkpoint after the last finite epoch, written if training diverges.
        watch: called at the start of training and after every epoch.

    Raises:
        PermanentError: the loss, a trained tensor or, at the end, a logit of a training image is
            not finite, or the GPU has too little memory.
        UserError: the method can't train this network or lacks an input, or its class does not say
            what its entry says.
    """
    method = load_algorithm(settings.algorithm, settings.settings, run.method)
    refuse_other_facts(method, settings.facts, run.method)
    whole_target = load_dataset(target, settings.view, TRAIN)
    dataset = subset(whole_target, run.size, run.seed)
    scored_images = images_of_fit(dataset)
    proxy = load_proxy(reference, settings.view) if reference else None
    number_of_images = len(dataset.labels)
    training = settings.training
    # After reading, since from here on the job keeps a GPU from others.
    device = devices.start(settings.compute)
    torch.manual_seed(run.seed)
    model, pretrained, preprocessing = load_start(model_folder, method, start, run, device)
    images = training_images(dataset, preprocessing, training, run.seed, device)
    task = Task(
        model=model,
        target=images,
        reference=Images(proxy, preprocessing, device) if proxy else None,
        seed=run.seed,
        text=load_text(model_folder, text_folder, device) if text_folder else None,
        fisher=safetensors.torch.load_file(shared_fisher) if shared_fisher else None,
    )
    with explained_lack_of_memory("setting up", run, setting=None):
        set_up(method, task, run, settings.compute.gradient_checkpointing)
    steps = images_seen = 0
    epochs: list[dict] = []  # rows of the history
    facts_of_device: dict[str, Any] = devices.facts_of(device)
    changed: Mapping[str, Tensor]
    with rescued(saved, rescue, ENTRY_OF_RATE):
        if training is None:  # the method has read weights that were trained elsewhere
            changed = method.changed_tensors(pretrained)
        else:
            # A subset may be trained for as many steps as the whole target.
            steps = training.total_steps(number_of_images, len(whole_target.labels))
            images_seen = training.images_seen(steps, number_of_images)
            with explained_lack_of_memory("training", run, setting_of_training_memory(method)):
                epochs, changed, earlier_devices = train(
                    method,
                    pretrained,
                    training,
                    run,
                    device,
                    saved=saved,
                    snapshots=snapshots,
                    watch=watch,
                    steps=steps,
                )
            facts_of_device = devices.record_earlier(earlier_devices, device)
            assert history is not None  # only imported weights have none
            write_history(epochs, history)
        store_checkpoint(checkpoint, changed, pretrained, run)
        try:
            with explained_lack_of_memory("measuring the fit of", run, setting=None):
                fit = measure_fit(run, model_folder, checkpoint, scored_images, device)
        except InfiniteLogitsError as error:
            logit = "a logit of a training image"
            if training is None:
                message = f"{run}: {logit} is not finite; don't use these weights."
                raise PermanentError(message) from error
            raise DivergenceError(run, logit, method.lr, len(epochs), changed) from error
    facts = {
        **facts_of_device,
        "label_space": dataset.space.digest,
        "train_images": number_of_images,
        "steps": steps,
        "images": images_seen,
        "fit": fit,
        **method.facts,
    }
    write_json(manifest, facts)


def load_start(
    model_folder: Path,
    method: FineTuning,
    start: Mapping[str, Path],
    run: Run,
    device: torch.device,
) -> tuple[Classifier, dict[str, Tensor], dict]:
    """The network that training starts from, the pretrained state dict, and the preprocessing.

    Changes are stored relative to the pretrained state dict. The preprocessing is such as
    {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], ...}.

    Args:
        method: its rates of dropout are built into the network.
        start: checkpoint to start from, such as {"linear_probe": Path("checkpoint.safetensors")};
            empty for the pretrained model.

    Raises:
        UserError: the checkpoint to start from has a padding prompt.
    """
    model, facts = load(model_folder, device, method.dropout, method.drop_path)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if start:
        # The average of this one checkpoint, with the coefficient 1, is the checkpoint.
        started = apply(model, dict.fromkeys(start, 1.0), start)
        if started is not model:  # a padding prompt makes another network
            (method_of_start,) = start
            raise UserError(
                f"method {run.method} can't start from '{method_of_start}', which trains a prompt."
            )
    return model, pretrained, facts["preprocessing"]


def training_images(
    dataset: PreparedDataset,
    preprocessing: Mapping,
    training: TrainingSettings | None,
    seed: int,
    device: torch.device,
) -> Images:
    """Images of a dataset, augmented in training if the recipe says so."""
    images = Images(dataset, preprocessing, device)
    if training is not None and training.augmentation:
        transform = recipe_transform(training.augmentation, images.side)
        images.augmentation = Augmentation(transform, seed)
    return images


def set_up(method: FineTuning, task: Task, run: Run, checkpointing: bool) -> None:
    """Set up a method, with gradient checkpointing if asked.

    Raises:
        UserError: the method doesn't fit the network or lacks an input.
    """
    try:
        if checkpointing:
            checkpoint_gradients(task.model, method)
        method.setup(task)
    except ValueError as error:
        raise UserError(f"method {run.method} on model {run.model}: {error}.") from error


def store_checkpoint(
    checkpoint: Path, changed: Mapping[str, Tensor], pretrained: Mapping[str, Tensor], run: Run
) -> None:
    """Write changed tensors, compressed; warn if there are none."""
    if not changed:
        log.warning("%s: the weights equal the pretrained ones", run)
    safetensors.torch.save_file(xor_compress(changed, pretrained), checkpoint)

"""Base class of fine-tuning methods; the training loop is in rib.training.loop."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from rib.base.errors import UserError
from rib.base.plugins import load_module, refused_settings
from rib.methods import BelowOne, Positive, stated_in
from rib.models.checkpoint import differing_tensors
from rib.models.images import Images
from rib.models.network import Classifier
from rib.models.text import Text
from rib.schema.method_facts import MethodFacts

BATCH_NORM = nn.modules.batchnorm._NormBase  # base class of torch's BatchNorm layers


@dataclass(frozen=True)
class Task:
    """A network and the images to train it on."""

    model: Classifier  # in evaluation mode
    target: Images  # training images
    # The pretraining proxy: images that stand in for the pretraining data. None unless the method
    # uses them.
    reference: Images | None
    seed: int
    text: Text | None = None  # text tower, only if the method's entry has `text: required`
    # Diagonal Fisher information on the proxy, a tensor in the shape of each parameter, such as
    # {"fc.bias": tensor}. None if no earlier job has computed it.
    fisher: Mapping[str, Tensor] | None = None


@pydantic.dataclasses.dataclass(kw_only=True, config=ConfigDict(extra="forbid"))
class FineTuning:
    """Full fine-tuning; subclasses change the trained parameters, the logits or the loss.

    Fields are settings, and a subclass may add some. Their defaults are in
    rib.schema.algorithm_settings and methods.yaml.
    """

    lr: Positive  # peak learning rate
    batch_norm: Literal["frozen", "train"]  # keep or update the BatchNorm statistics
    dropout: BelowOne  # dropout probability before the network's classifier
    # Probability of skipping a residual block in training (timm's stochastic depth).
    drop_path: BelowOne
    # Not settings:
    # True if the network stays in evaluation mode: no dropout, no updates of statistics.
    frozen_network = False
    # What the method's entry says, too (rib.schema.method_facts).
    # True if it imitates outputs of the network that training starts from. rib.methods._distil has
    # a base class for it.
    pretrained_teacher = False
    # True if it stores outputs of that network for the training images.
    stored_outputs = False
    # True if outputs that are too large for a GPU are stored in the host's memory.
    large_outputs_on_host = False
    # True if it trains a padding prompt, which can neither be averaged nor exported.
    padding_prompt = False
    # True if it trains with `Task.text`.
    text_tower = False
    # True if it uses `Task.fisher`.
    fisher_information = False

    def __post_init__(self) -> None:
        """Raise a ValueError if a setting has no effect in a frozen network."""
        changes_mode = self.batch_norm != "frozen" or self.dropout > 0 or self.drop_path > 0
        if self.frozen_network and changes_mode:
            raise ValueError(
                "the network stays in evaluation mode, without batch_norm: train, dropout or "
                "drop_path"
            )
        self.step = 0  # completed steps, counted by the training loop
        self.steps = 0  # steps of the whole training, set by the training loop
        # Further entries of the manifest, the JSON file beside the checkpoint.
        self.facts: dict[str, Any] = {}
        # Tensors besides the trained parameters that change from step to step, by name. `setup`
        # creates them; when a killed training resumes, their saved values are copied into them.
        self.memory: dict[str, Tensor] = {}

    def setup(self, task: Task) -> None:
        """Prepare for training on a task; called once, before the first step.

        A subclass raises a ValueError if it can't train this network or lacks an input.
        """
        self.task = task
        self.model = task.model
        self.images = task.target

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Trained parameters as pairs such as ("fc.weight", parameter): here all of the network."""
        return self.model.named_parameters()

    def train_mode(self) -> None:
        """Put the network into training mode, as far as the settings allow it."""
        self.model.train(not self.frozen_network)
        for module in self.model.modules():
            if self.batch_norm == "frozen" and isinstance(module, BATCH_NORM):
                module.eval()

    def normalises_by_batch(self, model: nn.Module) -> bool:
        """Whether BatchNorm layers of a network follow the batches when this method trains it."""
        has_batch_norm = any(isinstance(layer, BATCH_NORM) for layer in model.modules())
        return self.batch_norm == "train" and has_batch_norm

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs) of the target's images at the positions `rows` (N,)."""
        return self.model(self.images[rows])

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """The loss to minimise, a scalar: here the cross-entropy itself.

        The method `logits` was called for the same `rows` (N,) just before, so a subclass can use
        what it kept there.

        Args:
            cross_entropy: of the class logits, mean over the batch.
        """
        return cross_entropy

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """Scalar to add to the error: here none.

        Args:
            rows: the batch, (N,) positions in the target.
            logits: output of the method `logits` for `rows`, (N, outputs), in float32.
        """
        return 0.0

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the parameters by one step; gradients are there, clipped if the recipe says so."""
        optimizer.step()

    def changed_tensors(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to store in the checkpoint, such as {"fc.weight": tensor}.

        They are the network's tensors that differ from the pretrained state dict.
        """
        return differing_tensors(pretrained, self.model.state_dict())


class Pairs(NamedTuple):
    """Unit-norm features of N images and of a caption of each."""

    images: Tensor  # (N, d)
    captions: Tensor  # (N, d)


class Contrastive(FineTuning):
    """Base class of methods whose loss compares all images of a batch with all their captions.

    The loss is no mean over images, so gradients of micro-batches don't add up to its gradient.
    They do if each micro-batch is given the gradient that the batch's loss has at its features
    (rib.training.step). Therefore `encode` and `teach` see images of a micro-batch, and `contrast`
    sees the whole batch.
    """

    def captions(self, batch: np.ndarray) -> Tensor:
        """Tokens (N, L) of a caption of each image of a whole batch, given as rows (N,)."""
        raise NotImplementedError

    def encode(self, rows: np.ndarray, captions: Tensor) -> Pairs:
        """Features of a micro-batch: its rows (n,) and captions (n, L)."""
        raise NotImplementedError

    def teach(self, rows: np.ndarray, captions: Tensor) -> Pairs | None:
        """A teacher's features of a micro-batch, without gradient; here there is no teacher."""
        return None

    def contrast(self, pairs: Pairs, taught: Pairs | None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            pairs: features of the whole batch, from `encode`.
            taught: features of the whole batch, from `teach`.
        """
        raise NotImplementedError

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs) by the pretrained head; keeps the features for `error`."""
        captions = self.captions(rows)
        return self.logits_of(self.encode(rows, captions), self.teach(rows, captions))

    def logits_of(self, pairs: Pairs, taught: Pairs | None) -> Tensor:
        """The method `logits`, for a batch whose features are known."""
        self.pairs = pairs
        self.taught = taught
        return self.model.forward_head(pairs.images)

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """Contrastive loss of images and their captions, in place of the head's cross-entropy."""
        return self.contrast(self.pairs, self.taught)


def load_algorithm(path: str | Path, settings: Mapping[str, Any], method: str) -> FineTuning:
    """Create an object of the one FineTuning subclass that a module defines.

    Args:
        path: file of the module, such as `workflow/lib/rib/methods/lwf.py`.
        settings: arguments of the class, such as {"lr": 0.001, "temperature": 2.0}.
        method: its name, such as `lwf`, for messages.

    Raises:
        UserError: the module defines no such class or several, or a setting is unknown or out of
            range.
    """
    module = load_module(path)
    classes = [
        attribute
        for attribute in vars(module).values()
        if isinstance(attribute, type)
        and issubclass(attribute, FineTuning)
        and attribute.__module__ == module.__name__  # not one that the module only imports
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "no class"
        raise UserError(
            f"{path} defines {names}; define exactly one class that inherits from FineTuning, or "
            "state the form of a merge in the method's entry."
        )
    (algorithm_class,) = classes
    settings_of_class = [field.name for field in dataclasses.fields(algorithm_class)]
    # A refused setting becomes a UserError, which says where to correct it.
    with refused_settings(path, stated_in(method), settings_of_class):
        return algorithm_class(**settings)


def refuse_other_facts(algorithm: FineTuning, facts: MethodFacts, method: str) -> None:
    """Refuse an algorithm whose class doesn't say what the method's entry says.

    Args:
        facts: what the entry says.
        method: its name, such as `lora-rank4`, for the message.

    Raises:
        UserError: the first difference, and how to correct the entry.
    """
    for fact, in_entry in facts:
        in_class: bool = getattr(algorithm, fact)
        if in_class != in_entry:
            entry, _, _ = method.partition("-")
            key = f"'{MethodFacts.model_fields[fact].description}'"
            mistake = f"lacks {key}; add it" if in_class else f"states {key}; remove it"
            raise UserError(
                f"methods.yaml, {entry}: its class {type(algorithm).__name__} has {fact} = "
                f"{in_class}, but the entry {mistake}, or correct the class."
            )

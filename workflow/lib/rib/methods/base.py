"""Base class of fine-tuning methods; the training loop is in rib.training.loop."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

BATCH_NORM = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Task:
    """Input of a method."""

    model: Classifier  # the network to train, in evaluation mode
    target: Images  # to train on
    reference: Images | None  # the pretraining proxy
    seed: int
    text: Text | None = None  # of an open_clip model, if the method's entry has `text: required`
    # Diagonal Fisher information of the model's parameters on the proxy, by name and in their
    # shape, if a job of its own has computed it (rib.config.grid.Grid.shared_fisher).
    fisher: Mapping[str, Tensor] | None = None


@pydantic.dataclasses.dataclass(kw_only=True, config=ConfigDict(extra="forbid"))
class FineTuning:
    """Defines the trained parameters, the logits and the loss.

    What it does is full fine-tuning. Its fields are settings, and a subclass adds fields of its own
    (see rib.methods). Defaults are in rib.config.settings and in methods.yaml.
    """

    lr: Positive  # peak learning rate
    # Keeps the BatchNorm statistics, or updates them.
    batch_norm: Literal["frozen", "train"]
    dropout: BelowOne  # dropout probability before the network's classifier
    # Probability of skipping a residual block in training (timm's stochastic depth).
    drop_path: BelowOne
    # Not settings:
    # True if the error of a batch is not the mean over smaller batches that it is divided into.
    whole_batches = False
    # True if the network stays in evaluation mode, without dropout or updates of statistics.
    frozen_network = False

    def __post_init__(self) -> None:
        """Prepare what the training loop sets.

        Raises:
            ValueError: a setting has no effect.
        """
        changes_mode = self.batch_norm != "frozen" or self.dropout > 0 or self.drop_path > 0
        if self.frozen_network and changes_mode:
            raise ValueError(
                "the network stays in evaluation mode, without batch_norm: train, dropout or "
                "drop_path"
            )
        self.step = 0  # completed steps, counted by the training loop
        self.steps = 0  # of the whole training, set by the training loop
        self.facts: dict[str, Any] = {}  # further entries of the manifest
        # Tensors that change from step to step, besides the trained parameters, made in `setup`; a
        # killed training resumes with their values, which are copied into them.
        self.memory: dict[str, Tensor] = {}

    def setup(self, task: Task) -> None:
        """Prepare for training; called once."""
        self.task = task
        self.model = task.model
        self.images = task.target

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that are trained."""
        return self.model.named_parameters()

    def train_mode(self) -> None:
        """Set the network's training mode."""
        self.model.train(not self.frozen_network)
        for module in self.model.modules():
            if self.batch_norm == "frozen" and isinstance(module, BATCH_NORM):
                module.eval()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, 1000) of the given rows of the target."""
        return self.model(self.images[rows])

    def error(self, rows: np.ndarray, cross_entropy: Tensor) -> Tensor:
        """Scalar that is minimised on a batch, for which `logits` was called before.

        It is the cross-entropy of class logits, unless a subclass has another error.

        Args:
            rows: (N,) those of the target in the batch.
            cross_entropy: mean over the batch, a scalar.
        """
        return cross_entropy

    def penalty(self, rows: np.ndarray, logits: Tensor) -> Tensor | float:
        """Scalar that is added to the error of a batch.

        Args:
            rows: (N,) those of the target in the batch.
            logits: (N, outputs) of these images, as `logits` gave them, in float32.
        """
        return 0.0

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step with the optimiser of the recipe.

        Gradients are those of the batch, clipped if the recipe says so.
        """
        optimizer.step()

    def changed_tensors(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to store in the checkpoint, in the form of rib.models.checkpoint.

        Args:
            pretrained: the pretrained state dict.
        """
        return differing_tensors(pretrained, self.model.state_dict())


def load_algorithm(path: str | Path, settings: Mapping[str, Any], method: str) -> FineTuning:
    """The algorithm of a module, with its settings.

    It is an object of the one class that the module defines and that inherits from FineTuning.

    Args:
        path: file of the module, such as `workflow/lib/rib/methods/lwf.py`.
        settings: arguments of the class, such as {"lr": 0.001, "temperature": 2.0}.
        method: name of the method, for messages.

    Raises:
        UserError: The module has no such class or several, or a setting is not one of the class or
            out of its range.
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
    with refused_settings(path, stated_in(method), settings_of_class):
        return algorithm_class(**settings)

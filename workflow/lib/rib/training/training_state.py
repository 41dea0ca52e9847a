"""Saved training state, from which a killed training resumes with bit-identical results."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rib.base.devices import describe_device
from rib.base.errors import UserError
from rib.base.progress import log
from rib.models.device import facts_of

SAVE_EVERY = 300.0  # seconds between two saves
Tensors = Mapping[str, Tensor]
Facts = Mapping[str, str | None]  # of a device


class Position(NamedTuple):
    """Progress of a training."""

    epoch: int  # epoch in progress, counted from 0
    step: int  # number of completed steps of this epoch
    history: list[dict]  # a row for each completed epoch
    sums: list[Tensor]  # (4,) for each completed step of the epoch in progress

    @classmethod
    def start(cls) -> "Position":
        """Position of a training that has not begun."""
        return cls(epoch=0, step=0, history=[], sums=[])


class TrainingState:
    """Everything that the next step depends on, in one file.

    Args:
        path: the file; None to save nothing.
        trainable: trained parameters, by name; a padding prompt lies outside the network.
        memory: the method's tensors that change from step to step, by name.
        good: tensors after the last completed epoch, by name: `GoodState.kept`.

    Attributes:
        earlier_devices: facts of other devices on which this training ran before, see
            rib.models.device.facts_of.
    """

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        optimizer: Optimizer,
        trainable: Tensors,
        memory: Tensors,
        good: Tensors,
    ):
        self.path = path
        self.model = model
        self.optimizer = optimizer
        self.tensors = {"trainable": trainable, "memory": memory, "good": good}
        self.saved = time.monotonic()
        self.earlier_devices: list[Facts] = []
        self._device = next(model.parameters()).device

    def is_due(self) -> bool:
        """Whether SAVE_EVERY seconds have passed since the last `save`, since saving takes time."""
        return time.monotonic() - self.saved >= SAVE_EVERY

    def save(self, position: Position) -> None:
        """Save; without a file only the time is kept.

        Raises:
            OSError: the file can't be written.
        """
        if self.path is not None:
            self._save(position, self.path)
        self.saved = time.monotonic()

    def _save(self, position: Position, path: Path) -> None:
        """`save`, to a file that a killed job leaves whole."""
        state: dict[str, object] = {
            "device": facts_of(self._device),
            "earlier_devices": self.earlier_devices,
            "place": tuple(position),
            "random": torch.get_rng_state(),
            **self.tensors,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if torch.cuda.is_available():
            state["cuda_random"] = torch.cuda.get_rng_state()
        # A complete file replaces the old one.
        temporary = path.with_suffix(".tmp")
        _write(state, temporary)
        os.replace(temporary, path)

    def restore(self) -> Position:
        """Restore the saved state, unless type of device or precision differ.

        On another card of the same precision the training goes on: its last digits then differ from
        those of a training on one card, and `earlier_devices` names the other card.

        Returns:
            Position of the saved training; without such a state the start.

        Raises:
            UserError: the file is damaged, or contains other objects than this class saves.
        """
        if self.path is None or not self.path.is_file():
            return Position.start()
        state = _read(self.path)
        before = state["device"]
        now = facts_of(self._device)
        names = (describe_device(before), describe_device(now))
        if (before["device"], before["precision"]) != (now["device"], now["precision"]):
            log.warning(
                "the saved state is of a training on %s; this one is on %s and starts again", *names
            )
            return Position.start()
        self.earlier_devices = state["earlier_devices"]
        if describe_device(before) != describe_device(now):
            log.warning("the training was saved on %s, and goes on on %s", *names)
            self.earlier_devices = [*self.earlier_devices, before]
        self._restore_tensors(state)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if "cuda_random" in state:
            torch.cuda.set_rng_state(state["cuda_random"])
        position = Position(*state["place"])
        sums = [sums_of_step.to(self._device) for sums_of_step in position.sums]
        log.info("resuming after epoch %d, step %d", position.epoch, position.step)
        return position._replace(sums=sums)

    @torch.no_grad()
    def _restore_tensors(self, state: Mapping) -> None:
        """Copy saved values into tensors in place, since optimiser and method refer to them.

        Groups are `trainable` (also tensors outside the network, such as a prompt), `memory` (what
        the method keeps from step to step) and `good` (the last finite values).
        """
        self.model.load_state_dict(state["model"], strict=True)
        for group, tensors in self.tensors.items():
            saved_tensors = state[group]
            for name, tensor in tensors.items():
                tensor.copy_(saved_tensors[name])


def _read(path: Path) -> dict:
    """A state that `save` wrote; torch runs no code from the file (`weights_only`)."""
    try:
        state: dict = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise  # the file may be whole: too little memory, or a failing disk
    except Exception:
        # `from None` hides torch's message, which recommends loading without `weights_only`.
        raise UserError(
            f"{path} is damaged, or is not the saved state of a training; delete it and run again."
        ) from None
    return state


def _write(state: Mapping, path: Path) -> None:
    """Write a state; unlike torch's error, the OSError says why and names the path."""
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        # torch raises its own error while it handles the file's error.
        cause = error.__context__
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise

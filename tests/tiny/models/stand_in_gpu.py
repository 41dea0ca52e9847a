"""A stand-in for a GPU: a device of torch whose tensors have values, but not in the host's eyes.

It is torch's backend `privateuseone` (torch.utils.backend_registration), here called `standin`.
Tensors on it are wrappers around tensors of the CPU, which compute. As on a GPU, operators refuse
tensors of different devices, and nothing reaches the host but by a copy.

Torch can't take a backend back, and must know it before it computes the first gradient, so this is
for processes of its own.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "standin"
# Operators that may have tensors of both devices.
COPIES = ("aten::_to_copy", "aten::copy_", "aten::_foreach_copy_")


def is_possible() -> bool:
    """Whether this version of torch has backends that are written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


class StandInTensor(torch.Tensor):
    """A tensor on the stand-in, with a tensor of the CPU that has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor):
        """The wrapper of a tensor of the CPU."""
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=f"{NAME}:0",
        )
        tensor.values_on_cpu = values
        return tensor

    def tolist(self):
        """Its values as Python's numbers; torch's own function refuses wrappers."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        """Refuse to compute outside of `stand_in_gpu`."""
        raise RuntimeError(f"{operator} was called outside of stand_in_gpu()")


class _Computing(TorchDispatchMode):
    """Computes operators on the stand-in with those of the CPU."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        """What an operator gives: on the stand-in if its device or its tensors are there."""
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_stand_in = [tensor for tensor in tensors if isinstance(tensor, StandInTensor)]
        _refuse_mixed_devices(operator, tensors)
        gives_stand_in = bool(on_stand_in)
        if kwargs.get("device") is not None:
            gives_stand_in = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu")
        values = operator(*tree_map(_values, args), **tree_map(_values, kwargs))
        # Operators that change a tensor give that tensor.
        wrappers = {id(tensor.values_on_cpu): tensor for tensor in on_stand_in}

        def wrapped(value):
            if not isinstance(value, Tensor) or not gives_stand_in:
                return value
            wrapper = wrappers.get(id(value))
            return StandInTensor(value) if wrapper is None else wrapper

        return tree_map(wrapped, values)


def _values(value):
    """The values of a tensor on the stand-in; others as they are."""
    return value.values_on_cpu if isinstance(value, StandInTensor) else value


def _refuse_mixed_devices(operator, tensors: list[Tensor]) -> None:
    """Raise a RuntimeError if an operator has tensors of both devices, except for single numbers.

    That is what CUDA's operators allow.
    """
    if operator.name().partition(".")[0] in COPIES:
        return
    is_number = [tensor.ndim == 0 and tensor.device.type == "cpu" for tensor in tensors]
    of_devices = {
        tensor.device for tensor, number in zip(tensors, is_number, strict=True) if not number
    }
    if len(of_devices) > 1:
        raise RuntimeError(f"{operator} has tensors on {sorted(map(str, of_devices))}")


class _Module(backend_registration._DummyBackendModule if is_possible() else object):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Types in which autocast computes."""
        return [torch.bfloat16]


@contextlib.contextmanager
def stand_in_gpu() -> Iterator[torch.device]:
    """Register the stand-in, for the rest of this process, and compute on it; gives the device."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # Otherwise torch.tensor(number, device=...) asks the device without asking the mode.
    torch._C._set_only_lift_cpu_tensors(True)
    with _Computing():
        yield torch.device(NAME, 0)

"""What a network in memory differs in from another one that was built in the same way."""

from collections.abc import Collection
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType

import torch
from torch import Tensor, nn

# Attributes of torch's modules in which they keep hooks that a forward pass calls.
FORWARD_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Attributes that every module has: among them hooks, tensors and modules, which are compared by
# themselves, and whether it is in training mode, which does not count.
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# Attributes of other types are compared by their class only.
COMPARED_BY_VALUE = (bool, int, complex, str, bytes, type(None), torch.dtype, torch.device)


def structural_difference(
    network: nn.Module, reference: nn.Module, ignored: Collection[str] = ()
) -> str | None:
    """The first place where a network computes otherwise than a reference, except by its tensors.

    Compared are the modules by name and class, their forward hooks, and their attributes: numbers,
    texts, types and functions (such as a `forward` of one module) by value, and lists and tuples of
    them, others by their class.

    Args:
        ignored: attributes of the whole network that don't count.

    Returns:
        A phrase for a message, such as "the module 'act1' is a ReLU"; None without a difference.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    expected_modules = dict(reference.named_modules(remove_duplicate=False))
    for name, module in modules.items():
        expected = expected_modules.get(name)
        if expected is None or _class_name(type(module)) != _class_name(type(expected)):
            return f"{_place(name)} is a {type(module).__name__}"
        if _hooks(module) != _hooks(expected):
            return f"{_place(name)} has other hooks"
        skipped = OF_EVERY_MODULE.union(ignored if module is network else ())
        attributes = _attributes(module, skipped)
        expected_attributes = _attributes(expected, skipped)
        for attribute in sorted(attributes.keys() | expected_attributes.keys()):
            if attributes.get(attribute) != expected_attributes.get(attribute):
                return f"{_place(name)} has another '{attribute}'"
    for name in expected_modules:
        if name not in modules:
            return f"{_place(name)} is missing"
    if list(modules) != list(expected_modules):
        return "the network has its modules in another order"
    return None


def changed_tensor(network: nn.Module, reference: nn.Module) -> str | None:
    """Name of the first tensor that only one of two networks has, or that differs; None if all agree.

    Tensors are parameters, buffers (also those that no state dict has) and attributes; they differ
    in values, shape or type.
    """
    tensors = _tensors(network)
    expected = _tensors(reference)
    for name in [*tensors, *expected]:
        if name not in tensors or name not in expected:
            return name
        one, other = tensors[name].detach().cpu(), expected[name].detach().cpu()
        if one.dtype != other.dtype or not torch.equal(one, other):
            return name
    return None


def has_global_hooks() -> bool:
    """Whether torch calls hooks in the forward pass of every module of the process."""
    module = nn.modules.module
    return bool(module._global_forward_pre_hooks or module._global_forward_hooks)


def _place(name: str) -> str:
    return f"the module '{name}'" if name else "the network"


def _class_name(kind: type) -> tuple[str, str]:
    """By name, since the classes of a catalogue's files are defined again by each load."""
    return kind.__module__, kind.__qualname__


def _hooks(module: nn.Module) -> list[list]:
    return [[_comparable(hook) for hook in vars(module)[kind].values()] for kind in FORWARD_HOOKS]


def _attributes(module: nn.Module, skipped: Collection[str]) -> dict[str, tuple]:
    """Attributes of a module by name, in a form in which equal ones are equal."""
    return {
        name: (_class_name(type(value)), _comparable(value))
        for name, value in vars(module).items()
        if name not in skipped
    }


def _comparable(value: object) -> object:
    if isinstance(value, COMPARED_BY_VALUE):
        return value
    if isinstance(value, float):
        return repr(value)  # NaN is not equal to itself
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    if isinstance(value, type):
        return _class_name(value)
    if isinstance(value, FunctionType | MethodType):
        return value.__code__  # two loads of a network define two functions of the same code
    if isinstance(value, BuiltinFunctionType):
        return value.__module__, value.__qualname__
    if isinstance(value, partial):
        arguments = [*value.args, *sorted(value.keywords.items())]
        return [_comparable(value.func), _comparable(arguments)]
    return _class_name(type(value))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    parameters = dict(network.named_parameters(remove_duplicate=False))
    buffers = dict(network.named_buffers(remove_duplicate=False))
    attributes = {
        f"{name}.{attribute}".lstrip("."): value
        for name, module in network.named_modules(remove_duplicate=False)
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    }
    return {**parameters, **buffers, **attributes}

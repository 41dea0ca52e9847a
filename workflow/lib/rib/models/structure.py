"""Where a network in memory differs from another one that was built in the same way."""

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
    """The first point in which a network computes otherwise than a reference, except its tensors.

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
        skipped = OF_EVERY_MODULE
        if module is network:
            skipped = skipped.union(ignored)
        difference = _module_difference(module, expected_modules.get(name), skipped)
        if difference is not None:
            return f"{_described(name)} {difference}"
    for name in expected_modules:
        if name not in modules:
            return f"{_described(name)} is missing"
    if list(modules) != list(expected_modules):
        return "the network has its modules in another order"
    return None


def _module_difference(
    module: nn.Module, expected: nn.Module | None, skipped: Collection[str]
) -> str | None:
    """The first point in which a module itself, without those inside of it, is not as expected.

    Args:
        expected: the reference's module of this name; None if it has none.
        skipped: names of attributes that are not compared.

    Returns:
        A predicate for a message, such as "is a ReLU"; None without a difference.
    """
    if expected is None or _class_name(type(module)) != _class_name(type(expected)):
        return f"is a {type(module).__name__}"
    if _hooks(module) != _hooks(expected):
        return "has other hooks"
    attributes = _attributes(module, skipped)
    expected_attributes = _attributes(expected, skipped)
    for attribute in sorted(attributes.keys() | expected_attributes.keys()):
        if attributes.get(attribute) != expected_attributes.get(attribute):
            return f"has another '{attribute}'"
    return None


def changed_tensor(network: nn.Module, reference: nn.Module) -> str | None:
    """Name of the first tensor that differs, or that one of two networks lacks; None if all agree.

    Tensors are parameters, buffers (also those that no state dict has) and attributes; they differ
    in values, shape or type.
    """
    tensors = _tensors(network)
    expected_tensors = _tensors(reference)
    for name in [*tensors, *expected_tensors]:
        if name not in tensors or name not in expected_tensors:
            return name
        tensor = tensors[name].detach().cpu()
        expected = expected_tensors[name].detach().cpu()
        if tensor.dtype != expected.dtype or not torch.equal(tensor, expected):
            return name
    return None


def has_global_hooks() -> bool:
    """Whether torch calls hooks in the forward pass of every module of the process."""
    module = nn.modules.module
    return bool(module._global_forward_pre_hooks or module._global_forward_hooks)


def _described(module_name: str) -> str:
    """A module in words, such as "the module 'act1'"; the whole network's name is empty."""
    return f"the module '{module_name}'" if module_name else "the network"


def _class_name(cls: type) -> tuple[str, str]:
    """Module and name of a class, such as ("torch.nn.modules.activation", "ReLU").

    Classes are compared by name, since each load of a catalogue's file defines them again.
    """
    return cls.__module__, cls.__qualname__


def _hooks(module: nn.Module) -> list[list]:
    """What is compared of a module's hooks: a list of those before a forward pass, and after it."""
    comparable_hooks = []
    for attribute in FORWARD_HOOKS:
        hooks = vars(module)[attribute]
        comparable_hooks.append([_comparable(hook) for hook in hooks.values()])
    return comparable_hooks


def _attributes(module: nn.Module, skipped: Collection[str]) -> dict[str, tuple]:
    """What is compared of a module's attributes, by name: class and value."""
    comparable_attributes = {}
    for name, attribute in vars(module).items():
        if name not in skipped:
            comparable_attributes[name] = (_class_name(type(attribute)), _comparable(attribute))
    return comparable_attributes


def _comparable(attribute: object) -> object:
    """What is compared of an attribute or a hook: its value if possible, otherwise its class.

    Of a function it is the code, of a list the elements in this form.
    """
    if isinstance(attribute, COMPARED_BY_VALUE):
        return attribute
    if isinstance(attribute, float):
        return repr(attribute)  # NaN is not equal to itself
    if isinstance(attribute, list | tuple):
        return [_comparable(element) for element in attribute]
    if isinstance(attribute, type):
        return _class_name(attribute)
    if isinstance(attribute, FunctionType | MethodType):
        return attribute.__code__  # two loads of a network define two functions of the same code
    if isinstance(attribute, BuiltinFunctionType):
        return attribute.__module__, attribute.__qualname__
    if isinstance(attribute, partial):
        arguments = [*attribute.args, *sorted(attribute.keywords.items())]
        return [_comparable(attribute.func), _comparable(arguments)]
    return _class_name(type(attribute))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """All tensors of a network by name: parameters, buffers and attributes."""
    tensors: dict[str, Tensor] = {}
    tensors.update(network.named_parameters(remove_duplicate=False))
    tensors.update(network.named_buffers(remove_duplicate=False))
    for module_name, module in network.named_modules(remove_duplicate=False):
        for attribute_name, attribute in vars(module).items():
            if isinstance(attribute, Tensor):
                # The whole network's name is empty.
                name = f"{module_name}.{attribute_name}".lstrip(".")
                tensors[name] = attribute
    return tensors

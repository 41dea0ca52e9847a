"""Operators inside a training step that make a GPU wait, or raise an error on it.

Steps are those of rib.training.loop, taken with each method of the catalogue on small networks,
on the CPU or on a stand-in for a GPU (tiny.models.stand_in_gpu):

    python -m tiny.models.census NETWORK          each method on a network
    python -m tiny.models.census architectures    full fine-tuning on each architecture

These are on the stand-in, which a process keeps, and print the faults as JSON.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import open_clip
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rib.methods.base import Task, load_algorithm
from rib.models.images import Images
from rib.models.text import Text
from rib.training import loop
from tiny.changed import replace
from tiny.models import texts, training
from tiny.models.architectures import ARCHITECTURES
from tiny.models.methods import CATALOG, coloured_images
from tiny.models.training import CPU, HALF, RUN, settings_of

TRAINING = replace(training.TRAINING, epochs=1, batch_size=4)
# The device for which optimisers are made: its fused ones exist on a CPU, too.
DEVICE_OF_OPTIMIZER = torch.device("cuda")
CLIP = "clip"  # the image tower of tiny.models.texts, with its text tower
NETWORKS = ("resnet", "vit", CLIP)  # on which all methods are counted; others have no text tower
# Full fine-tuning with other settings of training than those of TRAINING.
VARIANTS = {
    "ft with AdamW": {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 1.0},
    "ft with Lion": {"optimizer": "lion", "label_smoothing": 0.1},
    "ft in micro-batches": {"micro_batch_size": 3},
}

# Operators with which the host waits for the GPU: they read a value, or a shape depends on values.
WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "equal",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# Operators that call nonzero if an index has booleans.
INDEXING = {"index", "index_put", "index_put_"}
# Operators that raise an error on CUDA where algorithms must be deterministic. The list is that of
# the documentation of torch.use_deterministic_algorithms (torch 2.13, "will throw a RuntimeError").
# Of NLLLoss, which it names, only that of maps raises (ATen/native/cuda/NLLLoss2d.cu).
RAISING = {
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward",
    "_upsample_bicubic2d_aa_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "_ctc_loss_backward",
    "_embedding_bag_dense_backward",
    "put",
    "put_",
    "histc",
    "bincount",
    "median",
    "nanmedian",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
}
# Those that raise for floating-point numbers only.
RAISING_FOR_FRACTIONS = {"cumsum", "cumsum_"}


class Census(TorchDispatchMode):
    """Notes what a GPU should not be asked for, while `counts` is true.

    Attributes:
        faults: what was noted, each with the line of the library from which it came.
        operators: number of all operators that were counted.
    """

    def __init__(self) -> None:
        """Nothing is counted yet."""
        super().__init__()
        self.counts = False
        self.faults: set[str] = set()
        self.operators = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        """Note an operator, and let it be computed."""
        kwargs = kwargs or {}
        if self.counts:
            self.operators += 1
            fault = fault_of(operator, args, kwargs)
            if fault is not None:
                self.faults.add(f"{operator} {fault}, from {line_of_library()}")
        return operator(*args, **kwargs)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """While this is entered, operators are counted."""
        self.counts = True
        try:
            yield
        finally:
            self.counts = False

    @contextlib.contextmanager
    def of_steps(self) -> Iterator[None]:
        """While this is entered, operators of the steps of trainings are counted."""
        with self, each_step_within(self.counting):
            yield


@contextlib.contextmanager
def each_step_within(context: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """While this is entered, each step of a training is taken within a context of its own."""
    take_step = loop.take_step

    def step_within_context(*arguments):
        with context():
            return take_step(*arguments)

    with mock.patch.object(loop, "take_step", step_within_context):
        yield


def fault_of(operator, args: tuple, kwargs: dict) -> str | None:
    """Why a GPU should not be asked for an operator within a step; None if it may be."""
    name = operator.name().removeprefix("aten::").partition(".")[0]
    has_boolean_index = name in INDEXING and any(
        index is not None and index.dtype == torch.bool for index in args[1]
    )
    if name in WAITING or has_boolean_index:
        return "lets the host wait"
    is_floating = bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()
    if name in RAISING or (name in RAISING_FOR_FRACTIONS and is_floating):
        return "raises on CUDA"
    if name == "_to_copy":
        target = torch.device(kwargs.get("device") or args[0].device)
        return fault_of_copy(args[0].device, target, kwargs.get("non_blocking", False))
    if name in ("copy", "copy_"):
        target, source, *non_blocking = args
        return fault_of_copy(source.device, target.device, non_blocking == [True])
    return None


def fault_of_copy(source: torch.device, target: torch.device, non_blocking: bool) -> str | None:
    """Why tensors should not be copied like this within a step; None if they may be."""
    if source.type == target.type:
        return None
    if target.type == "cpu":
        return "copies to the host"
    return None if non_blocking else "copies from the host while the GPU waits"


def line_of_library() -> str:
    """The innermost line of the library that is being run: `methods/lwf.py:91`."""
    frame = sys._getframe()
    while frame is not None:
        _, separator, path_in_library = frame.f_code.co_filename.rpartition("/rib/")
        if separator:
            return f"{path_in_library}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def methods_on(network: str) -> list[str]:
    """Names of the catalogue's methods that train a network of NETWORKS, and of the variants."""
    has_text = network == CLIP
    type_of_network = "vit" if has_text else ARCHITECTURES[network].type
    names = []
    for method in CATALOG.methods.values():
        can_train = type_of_network in method.types and (has_text or method.text != "required")
        if method.trains and can_train:
            names.append(method.name)
    return [*names, *VARIANTS]


def small_network(name: str) -> tuple[nn.Module, Text | None]:
    """A small network with random weights on the CPU, and its text tower if it has one.

    Args:
        name: CLIP, or one of tiny.models.architectures.
    """
    if name == CLIP:
        with mock.patch.object(open_clip, "OPENAI_IMAGENET_TEMPLATES", texts.TEMPLATES):
            return texts.taken_apart(texts.open_clip_model())
    return ARCHITECTURES[name].build().eval(), None


def small_images(network: str):
    """Ten images of a few classes that the network can tell apart."""
    return texts.photos() if network == CLIP else coloured_images(ARCHITECTURES[network].size)


def on_device(dataset, device: torch.device) -> Images:
    """What a method sees of a dataset on a device."""
    return Images(dataset, {"mean": HALF, "std": HALF}, device)


def trained(
    name: str,
    network: str,
    device: torch.device,
    setup_within: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    saved: Path | None = None,
) -> Mapping[str, Tensor]:
    """Train a small network with a method, or a variant, for one epoch of three steps.

    Args:
        name: one of `methods_on(network)`.
        setup_within: gives a context within which the method is set up.
        saved: file of the training state, from which the training resumes if it is there.

    Returns:
        The tensors that the training has changed, on the CPU.
    """
    entry = CATALOG.methods["ft" if name in VARIANTS else name]
    algorithm = load_algorithm(CATALOG.algorithm_file(entry.algorithm), fitting(entry), entry.name)
    model, text = small_network(network)
    images = on_device(small_images(network), device)
    if text is not None:
        text.tower.to(device)
    model.to(device, memory_format=torch.channels_last)
    pretrained = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    task = Task(model, images, images, seed=0, text=text)
    with setup_within():
        algorithm.setup(task)
    settings = replace(TRAINING, **VARIANTS.get(name, {}))
    return loop.train(algorithm, pretrained, settings, RUN, DEVICE_OF_OPTIMIZER, saved).changed


def fitting(entry) -> dict:
    """Settings of a method, with texts so short that the small text tower takes them."""
    settings = settings_of(entry)
    if "length" in settings:
        settings["length"] = 3
    return settings


def faults_of(name: str, network: str, device: torch.device = CPU) -> list[str]:
    """What a GPU should not be asked for in the steps of a method on a small network."""
    census = Census()
    with census.of_steps():
        trained(name, network, device)
    assert census.operators > 0, "no step was counted"
    return sorted(census.faults)


def faults_on_stand_in(name: str, network: str, device: torch.device) -> list[str]:
    """Faults of a method on the stand-in, or the error that tensors are on different devices."""
    try:
        return faults_of(name, network, device)
    except RuntimeError as error:
        return [str(error)]


def main() -> None:
    """Do what the docstring of the module says."""
    from tiny.models.stand_in_gpu import stand_in_gpu

    (chosen,) = sys.argv[1:]
    torch.set_num_threads(1)
    with stand_in_gpu() as device:
        if chosen == "architectures":
            faults = {name: faults_on_stand_in("ft", name, device) for name in ARCHITECTURES}
        else:
            faults = {name: faults_on_stand_in(name, chosen, device) for name in methods_on(chosen)}
    print(json.dumps(faults))


if __name__ == "__main__":
    main()

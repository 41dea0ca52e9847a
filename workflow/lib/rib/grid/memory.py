"""Memory that jobs with networks need, estimated from their sizes. No torch.

Factors of the memory of the host are measured by tests/benchmarks/memory.py; its README has the
numbers. What CUDA takes, and the memory of a GPU, are counted, and no GPU has confirmed them.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rib.base.errors import UserError
from rib.grid.evaluation_batches import images_per_pass
from rib.grid.grid import Grid
from rib.grid.stored_outputs import LARGEST_OF_TEACHER_ON_HOST, LARGEST_STORED
from rib.schema.entries import Model
from rib.schema.forms import CURVE
from rib.schema.run import ALL, ENSEMBLE, PRETRAINED, images_of

MEGA = 10**6
GIGA = 10**9
FLOAT = 4  # bytes of a parameter
HALF_FLOAT = 2  # bytes of a parameter in bf16, of which autocast keeps a copy
# Of a model whose entry doesn't state them: somewhat more than those of ViT-B.
UNKNOWN_PARAMETERS = 100_000_000
# A text tower of CLIP has up to 123 million parameters beside 304 million of images (ViT-L), and 63
# beside 38 (ResNet-50).
PARAMETERS_OF_TEXT_TOWER = 125_000_000

# Megabytes of a process with torch, timm and a prepared dataset.
LIBRARIES = 600
# Megabytes that CUDA's libraries take of the host besides, and of a GPU; both are guesses.
CUDA_ON_HOST = 3000
CUDA_ON_GPU = 1000
# Megabytes of the index and rows of very large datasets in a job that reads them.
MEGABYTES_OF_LARGE_DATASETS = 12000
# Copies of the weights in the memory of a job. Measured were 6.2 in training with SGD, 6.9 with
# AdamW and 7.2 with a teacher, and 2.2 in evaluation, of merges too.
COPIES_IN_TRAINING = 8
COPIES_IN_EVALUATION = 2
COPIES_WITH_GRADIENT = 6  # of what computes gradients, but does not train; not measured
# Share of the activations of a training that a forward pass alone has at a time. It is at most that
# in what was measured.
SHARE_WITHOUT_GRADIENT = 0.1
# Estimates are raised by this factor.
MARGIN = 1.25

# Tensors as large as the weights on the GPU in training: weights, gradients, the pretrained
# weights, those after the last epoch (rib.training.good_state), and a teacher or start that some
# methods keep.
TENSORS_IN_TRAINING = 5
# Those of an optimiser, by its name in recipes.
TENSORS_OF_OPTIMIZER = {"sgd": 1, "adamw": 2, "lion": 1}

ACTIVATIONS = "activations.csv"
PRECISIONS = ("fp32", "bf16")
CHECKPOINTED = "checkpointed_"  # prefix of columns with gradient checkpointing
STATED = ("side", *PRECISIONS)  # columns that contain numbers
COLUMNS = ("architecture", *STATED, *(CHECKPOINTED + precision for precision in PRECISIONS))
# Gigabytes of the GPUs, if the config doesn't state them, or bytes of stored outputs.
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward pass of one image keeps for the backward pass."""

    usual: float
    checkpointed: float | None  # with gradient checkpointing; None if the network has none

    def of(self, checkpointing: bool) -> float:
        """Bytes with or without gradient checkpointing; the usual ones if the network has none."""
        if checkpointing and self.checkpointed is not None:
            return self.checkpointed
        return self.usual


class NetworkMemory:
    """Estimates of the memory that jobs of a grid need, of the host (CPU) and of a GPU."""

    def __init__(self, grid: Grid):
        """Read the catalogue's activations.csv; for errors see `Catalog.table`."""
        self.grid = grid
        compute = grid.config["compute"]
        self.on_cpu = compute["device"] == "cpu"
        self.checkpointing: bool = compute["gradient_checkpointing"]
        self.evaluation_batch_size = images_per_pass(
            compute["evaluation_batch_size"], "cpu" if self.on_cpu else "cuda"
        )
        self.precision = compute["precision"]
        if self.precision == "auto":
            self.precision = "fp32" if self.on_cpu else "bf16"
        rows = grid.catalog.table(ACTIVATIONS, COLUMNS, STATED)
        self.rows = {row["architecture"]: row for row in rows}

    def activations(self, model: str) -> Activations | None:
        """Activations of a model at its image size, in the run's precision; None if unknown."""
        row = self.rows.get(self.grid.models[model].architecture)
        if row is None:
            return None
        # They are proportional to the number of pixels, of transformers too: torch's attention
        # keeps no matrix of all pairs of tokens.
        scale = (self.grid.geometry(model).size / float(row["side"])) ** 2 * MEGA
        checkpointed = row[CHECKPOINTED + self.precision]
        return Activations(
            usual=float(row[self.precision]) * scale,
            checkpointed=float(checkpointed) * scale if checkpointed else None,
        )

    def training_on_host(
        self, model: str, method: str | None = None, target: str | None = None, size: str = ALL
    ) -> int:
        """Megabytes of the host's memory for a job that trains a model.

        Args:
            method: with which it is fine-tuned; None if it is trained from random weights.
            target, size: on what it is fine-tuned, such as `imagenet_c` and `all`.
        """
        parameters = _parameters(self.grid.models[model])
        stored = 0
        if method is not None:
            parameters += self._parameters_of_text_tower([method])
            if target is not None:
                stored = self._stored_on_host(method, target, size)
        images = self._micro_batch_size(model, method)
        weights = COPIES_IN_TRAINING * FLOAT * parameters
        return self._on_host(weights, images * self._bytes_of_image(model) + stored)

    def _stored_on_host(self, method: str, target: str, size: str) -> int:
        """Bytes that the host keeps of the start network's outputs for the training images.

        Jobs on a GPU keep them there, except when they are too large there and the method keeps
        such outputs on the host.
        """
        stored = self._stored(method, target, size)
        facts = self.grid.methods[method].facts
        if stored > LARGEST_STORED and facts.large_outputs_on_host:
            if not facts.pretrained_teacher:
                return stored
            # A teacher's are in fp16. Beyond the limit they are computed in each step, but entries
            # may state more bytes than a network's outputs have.
            return min(stored // 2, LARGEST_OF_TEACHER_ON_HOST)
        return min(stored, LARGEST_STORED) if self.on_cpu else 0

    def _stored(self, method: str, target: str, size: str) -> int:
        """Bytes of the start network's outputs for all training images, if a method keeps them.

        0 where the number of images isn't known.
        """
        stored_outputs = self.grid.methods[method].stored_outputs
        if stored_outputs is None:
            return 0
        per_image = stored_outputs.bytes_per_image
        if per_image == UNKNOWN:
            per_image = LARGEST_STORED
        dataset = self.grid.catalog.datasets[target]
        images = dataset.images or dataset.about_images or 0
        return per_image * images_of(size, self.grid.budget.images(target, images))

    def _parameters_of_text_tower(self, methods: Iterable[str]) -> int:
        """Parameters of a text tower if one of these methods trains with texts, else 0."""
        has_tower = any(self.grid.methods[method].text != "no" for method in methods)
        return PARAMETERS_OF_TEXT_TOWER if has_tower else 0

    def gradients_on_host(self, model: str, images: int) -> int:
        """Megabytes of the host's memory for a job that computes gradients, but does not train.

        Args:
            images: number in a forward pass.
        """
        weights = COPIES_WITH_GRADIENT * FLOAT * _parameters(self.grid.models[model])
        return self._on_host(weights, images * self._bytes_of_image(model))

    def networks_of(self, method: str) -> int:
        """How many networks are in memory at once when a method is evaluated.

        A curve (averages of weights from the pretrained to the fine-tuned ones) has one at each of
        its steps and one at its start, and an ensemble the pretrained one and its parents' ones.
        Variants that are evaluated together, such as wise_ft-alpha0.5, have one each. Merges are
        averaged tensor by tensor.
        """
        entry = self.grid.methods.get(method)  # None for the pretrained model
        if entry is None:
            return 1
        if entry.form == CURVE:
            steps: int = entry.settings["steps"]
            return steps + 1
        if entry.form == ENSEMBLE:
            return 1 + len(self.grid.parents_of(method))
        return len(entry.evaluated)

    def evaluation_on_host(self, model: str, networks: int = 1) -> int:
        """Megabytes of the host's memory for a job that passes images through a model's networks.

        Args:
            networks: how many are in memory at once.
        """
        copies = COPIES_IN_EVALUATION + networks - 1
        weights = copies * FLOAT * _parameters(self.grid.models[model])
        activations = self.evaluation_batch_size * self._bytes_of_image(model)
        return self._on_host(weights, SHARE_WITHOUT_GRADIENT * activations)

    def training_on_gpu(self, model: str, images: int, checkpointing: bool) -> float | None:
        """Bytes of memory of a GPU that training a model needs; None if they are not known.

        Args:
            images: number in a forward pass.
            checkpointing: whether gradient checkpointing is on.
        """
        activations = self.activations(model)
        parameters = self.grid.models[model].parameters
        if activations is None or parameters is None:
            return None
        methods = self._trained_methods(model)
        parameters += self._parameters_of_text_tower(methods)
        tensors = TENSORS_IN_TRAINING + self._tensors_of_optimizer(model)
        weights = parameters * (tensors * FLOAT + self._bytes_of_cast_parameter())
        stored = 0
        for method, target, size in itertools.product(
            methods, self.grid.all_targets, self.grid.sizes
        ):
            stored = max(stored, min(LARGEST_STORED, self._stored(method, target, size)))
        return CUDA_ON_GPU * MEGA + weights + stored + images * activations.of(checkpointing)

    def evaluation_on_gpu(self, model: str) -> float | None:
        """Bytes of memory of a GPU that evaluating a model's runs needs; None if not known.

        A method with several networks, such as a curve, has the weights of each in memory.
        """
        activations = self.activations(model)
        parameters = self.grid.models[model].parameters
        if activations is None or parameters is None:
            return None
        methods = [PRETRAINED, *self.grid.methods_of(model)]
        networks = max(self.networks_of(method) for method in methods)
        # Casts are kept for all batches (rib.models.device.keep_casts).
        weights = parameters * networks * (FLOAT + self._bytes_of_cast_parameter())
        images = SHARE_WITHOUT_GRADIENT * self.evaluation_batch_size
        return CUDA_ON_GPU * MEGA + weights + images * activations.usual

    def images_of_pass(self, model: str) -> int:
        """The largest number of images in a forward pass of a training of a model."""
        methods = self._trained_methods(model)
        return max((self._micro_batch_size(model, method) for method in methods), default=0)

    def refuse_what_does_not_fit(self) -> None:
        """Raise a UserError if a model doesn't fit into the memory of a GPU that config states.

        It doesn't if it can't be trained, or if its networks can't be evaluated there. The message
        names the model whose training needs most memory, because its remedy helps all others.
        Models whose memory is not known are not refused.
        """
        gigabytes = self.grid.config["compute"]["gpu_memory_gb"]
        if gigabytes == UNKNOWN or self.on_cpu:
            return
        largest_model = None
        most_bytes = gigabytes * GIGA
        for model in self.grid.models:
            images = self.images_of_pass(model)
            needed = self.training_on_gpu(model, images, self.checkpointing)
            if images and needed is not None and needed > most_bytes:
                largest_model = model
                most_bytes = needed
        if largest_model is not None:
            images = self.images_of_pass(largest_model)
            raise UserError(
                f"config, compute.gpu_memory_gb is {gigabytes:g}, but training {largest_model} "
                f"with {images} images in a pass takes about {most_bytes / GIGA:.1f} GB; "
                f"{self._remedy(largest_model, images, gigabytes * GIGA)}."
            )
        self._refuse_large_evaluations(gigabytes)

    def _refuse_large_evaluations(self, gigabytes: float) -> None:
        """Raise a UserError for a model whose networks can't be evaluated in so much memory."""
        for model in self.grid.models:
            needed = self.evaluation_on_gpu(model)
            if needed is None or needed <= gigabytes * GIGA:
                continue
            activations = self.activations(model)
            assert activations is not None  # otherwise nobody knows what is needed
            excess = needed - gigabytes * GIGA
            images_too_many = math.ceil(excess / (SHARE_WITHOUT_GRADIENT * activations.usual))
            most_images = self.evaluation_batch_size - images_too_many
            remedy = "leave it out, or use a larger GPU"
            if most_images > 0:
                remedy = f"set compute.evaluation_batch_size to {most_images}"
            raise UserError(
                f"config, compute.gpu_memory_gb is {gigabytes:g}, but evaluating {model} with "
                f"{self.evaluation_batch_size} images in a pass takes about "
                f"{needed / GIGA:.1f} GB; {remedy}."
            )

    def _remedy(self, model: str, images: int, limit: float) -> str:
        """`set training.micro_batch_size to 32`, so that training fits into `limit` bytes."""
        remedies = []
        most_images = self._most_images(model, limit, self.checkpointing)
        if most_images:
            remedies.append(f"training.micro_batch_size to {most_images}")
        activations = self.activations(model)
        assert activations is not None  # otherwise nobody knows that it doesn't fit
        if not self.checkpointing and activations.checkpointed is not None:
            most_images = self._most_images(model, limit, checkpointing=True)
            if most_images >= images:
                remedies.append("compute.gradient_checkpointing to true")
            elif most_images and not remedies:
                remedies.append(
                    "compute.gradient_checkpointing to true and training.micro_batch_size to "
                    f"{most_images}"
                )
        if not remedies:
            return "leave it out, or use a larger GPU"
        return f"set {', or '.join(remedies)}"

    def _most_images(self, model: str, limit: float, checkpointing: bool) -> int:
        """The most images of a pass with which training a model fits into so many bytes; or 0."""
        fixed = self.training_on_gpu(model, 0, checkpointing)
        activations = self.activations(model)
        assert fixed is not None and activations is not None
        return max(0, int((limit - fixed) / activations.of(checkpointing)))

    def _trained_methods(self, model: str) -> list[str]:
        """Methods of a model that train."""
        methods = self.grid.methods
        return [name for name in self.grid.methods_of(model) if methods[name].trains]

    def _micro_batch_size(self, model: str, method: str | None) -> int:
        """Images in a forward pass of a training, with a method or (None) from random weights."""
        if method is None:
            training: Mapping[str, Any] = self.grid.pretraining(model)
        else:
            training = self.grid.training(method)
        batch_size: int = training["batch_size"]
        if training["micro_batch_size"] == ALL:
            return batch_size
        micro_batch_size: int = training["micro_batch_size"]
        return min(batch_size, micro_batch_size)

    def _tensors_of_optimizer(self, model: str) -> int:
        """Tensors as large as the weights that a model's optimisers keep at most: 2 for AdamW."""
        tensors = [0]
        for method in self._trained_methods(model):
            optimizer = self.grid.training(method).get("optimizer", "sgd")
            tensors.append(TENSORS_OF_OPTIMIZER[optimizer])
        return max(tensors)

    def _bytes_of_cast_parameter(self) -> int:
        """Bytes that autocast adds to each parameter, for a copy in bf16."""
        return HALF_FLOAT if self.precision == "bf16" else 0

    def _bytes_of_image(self, model: str) -> float:
        """Bytes of activations of an image that are in the memory of the host: on a CPU only."""
        activations = self.activations(model) if self.on_cpu else None
        if activations is None:
            return 0.0
        return activations.of(self.checkpointing)

    def _on_host(self, weights: float, activations: float) -> int:
        """Megabytes of memory of a job with so many bytes of weights and activations."""
        megabytes = LIBRARIES + (weights + activations) / MEGA
        if not self.on_cpu:
            megabytes += CUDA_ON_HOST
        return round(MARGIN * megabytes)


def _parameters(model: Model) -> int:
    """Number of parameters of a model, or a guess."""
    return model.parameters or UNKNOWN_PARAMETERS

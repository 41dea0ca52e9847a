"""Images of a forward pass in evaluation, where config leaves them to the device. No torch."""

from typing import Literal

DEFAULT_ON_CPU = 64
DEFAULT_ON_GPU = 256  # a GPU computes 64 images in about the time in which they are started

# Config's `compute.evaluation_batch_size`.
EvaluationBatchSize = Literal["default"] | int


def images_per_pass(choice: EvaluationBatchSize, device_type: str) -> int:
    """Images in a forward pass without gradients; only a job knows on which device it is.

    Args:
        choice: config's `compute.evaluation_batch_size`.
        device_type: `cpu` or `cuda`.
    """
    if choice != "default":
        return choice
    return DEFAULT_ON_GPU if device_type == "cuda" else DEFAULT_ON_CPU


def images_per_gradient(choice: EvaluationBatchSize) -> int:
    """Images in a pass whose activations are kept for gradients, by default few on a GPU, too."""
    return images_per_pass(choice, "cpu")

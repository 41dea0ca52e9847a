"""Settings of stages that compute with networks. No torch."""

from typing import Final, Literal

from pydantic import JsonValue

from rib.base.params import Settings, Texts
from rib.data.data_settings import DatasetView

AUTO: Final = "auto"
BF16: Final = "bf16"
STRICT: Final = "strict"
WARN: Final = "warn"
GPUS: Final = "RIB_GPUS"  # environment variable: N of `snakemake --resources gpu=N`, else 0


class ComputeSettings(Settings):
    """Device and precision of networks."""

    device: Literal["auto", "cpu", "cuda"]  # `auto`: CUDA if it works
    threads_per_job: int  # torch's threads; results are bit-identical for the same number
    # `bf16` is autocast: weights, heads and losses stay in fp32; `auto`: bf16 on CUDA devices that
    # support it, else fp32
    precision: Literal["auto", "fp32", "bf16"] = AUTO
    compile: bool = False
    # fine-tuning keeps only some activations and computes the others again
    gradient_checkpointing: bool = False
    # without a deterministic algorithm on CUDA: `strict` is an error; with `warn` a training gives
    # other numbers each time
    deterministic: Literal["strict", "warn"] = STRICT
    # without a working GPU, jobs with device `auto` fail instead of using the CPU
    expects_gpu: bool = False


class ConversionSettings(Settings):
    """Settings of a conversion; its other inputs are archives and the pretraining proxy."""

    entry: dict[str, JsonValue]  # facts of the model's catalogue entry (rib.grid.model_facts)
    # source of the head; `pretrained` was trained with the network, on the family's classes
    head: Literal["published", "zero_shot", "fitted", "pretrained"]
    num_classes: int  # outputs of the network
    # the family's class names for a zero-shot head; None for ImageNet's
    class_names: Texts | None
    view: DatasetView | None  # view of the pretraining proxy, if a head is fitted on it
    compute: ComputeSettings
    code: str  # digest of the source code; the job runs again when it changes


class TextSettings(Settings):
    """Settings of a stored text tower; its other inputs are archives."""

    entry: dict[str, JsonValue]  # facts of the model's catalogue entry (rib.grid.model_facts)
    # the family's class names for a zero-shot head; None for ImageNet's
    class_names: Texts | None
    code: str  # digest of the source code; the job runs again when it changes

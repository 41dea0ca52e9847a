"""Visual prompting: a padding prompt is trained, the network is frozen.

Source: Bahng et al. 2022 (arXiv 2203.17274), section 3, padding template: values are added to a
border of p pixels of the normalised image. The released code of ImageNet-RIB uses p = 30 of 224
(lib/prompter.py).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from rib.methods import NonNegative
from rib.methods.base import FineTuning, Task
from rib.models.checkpoint import PROMPT
from rib.models.padding_prompt import PaddingPrompt


@dataclass(kw_only=True)
class VisualPrompting(FineTuning):
    """Minimise CE(c(f(x + prompt)), y) over the prompt."""

    frozen_network = True
    padding_prompt = True

    padding: Annotated[float, Field(gt=0, lt=0.5)]  # p as a fraction of the image's side
    init_std: NonNegative  # standard deviation of the random start

    def setup(self, task: Task) -> None:
        """Create a random prompt that fits the images."""
        super().setup(task)
        side = self.images[slice(1)].shape[-1]
        width = max(1, round(self.padding * side))
        self.prompt = PaddingPrompt.of(side, width, self.images.device)
        generator = torch.Generator().manual_seed(task.seed)
        for strip in self.prompt.parameters():
            noise = torch.randn(strip.shape, generator=generator)
            strip.data += self.init_std * noise.to(strip.device)

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The four strips of the prompt: `top`, `bottom`, `left`, `right`."""
        return self.prompt.named_parameters()

    def logits(self, rows: np.ndarray) -> Tensor:
        """Logits (N, outputs) of the images with the prompt added."""
        return self.model(self.prompt(self.images[rows]))

    def changed_tensors(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Strips of the prompt such as `padding_prompt.top`, and changed tensors of the network."""
        strips = {}
        for name, strip in self.trainable():
            strips[f"{PROMPT}{name}"] = strip.detach().cpu().contiguous()
        # The network differs if it started from another method's checkpoint.
        changes_of_network = super().changed_tensors(pretrained)
        return {**strips, **changes_of_network}

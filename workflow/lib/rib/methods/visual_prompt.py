"""Visual prompting: a frame around the image is trained, the network is frozen.

Source: Bahng et al. 2022 (arXiv 2203.17274), section 3, padding template: a frame of p pixels is added to the
normalised image, the inner part is left alone. The released code of ImageNet-RIB uses p = 30 of 224
(lib/prompter.py).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rib.methods import mechanism
from rib.methods._base import FineTuning, Task
from rib.models.checkpoint import FRAME
from rib.models.frame import Frame


@mechanism
class VisualPrompting(FineTuning):
    """Minimise CE(c(f(x + frame)), y) over the frame.

    Args:
        frame: p as a share of the image's side, above 0 to below 0.5.
        init_std: standard deviation of the normal start, from 0.
    """

    def __init__(self, *, lr: float, frame: float, init_std: float):
        super().__init__(lr=lr, batch_norm="frozen", dropout=0.0, drop_path=0.0)
        if not 0 < frame < 0.5 or init_std < 0:
            raise ValueError(f"frame is {frame} and init_std {init_std}; give 0 to 0.5, and from 0")
        self.share = frame
        self.init_std = init_std

    def begin(self, task: Task) -> None:
        super().begin(task)
        side = self.inputs[slice(1)].shape[-1]
        self.frame = Frame.of(side, max(1, round(self.share * side)), self.inputs.device)
        generator = torch.Generator().manual_seed(task.seed)
        for strip in self.frame.parameters():
            strip.data += self.init_std * torch.randn(strip.shape, generator=generator).to(strip.device)

    def trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        return self.frame.named_parameters()

    def train_mode(self) -> None:
        """Evaluation mode throughout: the network is frozen."""
        self.model.eval()

    def logits(self, rows: np.ndarray) -> Tensor:
        return self.model(self.frame(self.inputs[rows]))

    def changes(self, pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frame = {f"{FRAME}{name}": strip.detach().cpu().contiguous() for name, strip in self.frame.named_parameters()}
        return {**frame, **super().changes(pretrained)}  # the network differs where it started from another method's

"""Text towers of image-text models, for methods that train with texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.files import read_json
from rib.config.model_arguments import check_arguments
from rib.models.device import autocast
from rib.models.network import create

CLASSES = 10  # classes whose prompts are encoded at once, as open_clip does


@dataclass(frozen=True)
class Text:
    """The text tower of an open_clip model, with tokens, so that no tokenizer is needed. L is the context length."""

    tower: nn.Module  # the model without its image tower, on the device
    prompts: Tensor  # (outputs, templates, L) int32, tokens of the prompts of each class that the network knows
    before: Tensor  # (s,) int32, tokens of a text before its words: the start
    after: Tensor  # (L - s,) int32, tokens of a text after its words: end and padding
    words: Tensor  # (V,) int32, all tokens but those of an empty text

    def encode(self, tokens: Tensor) -> Tensor:
        """Unit-norm features (N, d) of tokens (N, L)."""
        device = self.tower.logit_scale.device
        with autocast(device):
            return self.tower.encode_text(tokens.to(device), normalize=True).float()

    def similarities(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Logits (N, M) of unit-norm image features (N, d) and the texts of tokens (M, L)."""
        logits = self.tower.logit_scale.exp() * features.float() @ self.encode(tokens).T
        return logits if self.tower.logit_bias is None else logits + self.tower.logit_bias

    def random(self, number: int, length: int, draws: np.random.Generator) -> Tensor:
        """Tokens (number, L) of texts of `length` words drawn uniformly; a ValueError if the context is too short."""
        if length >= len(self.after):
            raise ValueError(
                f"its texts have room for {len(self.after) - 1} tokens, not for {length}"
            )
        words = self.words[torch.from_numpy(draws.integers(len(self.words), size=(number, length)))]
        rest = torch.cat([self.after[:1], self.after[1 + length :]])
        return torch.cat([self.before.expand(number, -1), words, rest.expand(number, -1)], dim=1)


@torch.no_grad()
def set_zero_shot_weights(head: nn.Linear, tower: nn.Module, prompts: Tensor) -> None:
    """Let the head of an open_clip model's network return the whole model's zero-shot logits for prompts (see Text).

    Logits are averaged over prompts. A SigLIP model's bias is the same for all classes, so it changes neither
    predictions nor cross-entropy; its training objective has no softmax over classes, so its confidences are not
    comparable with those of other models.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4; open_clip/zero_shot_classifier.py; Zhai et al. 2023
    (arXiv 2303.15343), algorithm 1.
    """
    for start in range(0, len(prompts), CLASSES):
        tokens = prompts[start : start + CLASSES].to(head.weight.device)
        features = (
            tower.encode_text(tokens.flatten(0, 1), normalize=True)
            .view(*tokens.shape[:2], -1)
            .mean(dim=1)
        )
        head.weight[start : start + CLASSES] = tower.logit_scale.exp() * F.normalize(
            features, dim=1
        )
    head.bias.fill_(0.0 if tower.logit_bias is None else tower.logit_bias.item())


def prompt_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> Tensor:
    """Tokens (classes, templates, L) int32 of the prompts of classes, without names those of ImageNet's."""
    import open_clip

    names, templates = (
        class_names or open_clip.IMAGENET_CLASSNAMES,
        open_clip.OPENAI_IMAGENET_TEMPLATES,
    )
    return torch.stack(
        [tokenizer([template(name) for template in templates]) for name in names]
    ).int()


def text_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> dict[str, Tensor]:
    """The tokens that `Text` has, by attribute."""
    empty, letter = tokenizer(["", "a"]).int()
    start = int((empty != letter).int().argmax())
    every = torch.arange(getattr(tokenizer, "tokenizer", tokenizer).vocab_size, dtype=torch.int32)
    words = every[~torch.isin(every, empty)]
    prompts = prompt_tokens(tokenizer, class_names)
    return {
        "prompts": prompts,
        "before": empty[:start].clone(),
        "after": empty[start:].clone(),
        "words": words,
    }


def load_text(model_folder: Path, text_folder: Path, device: torch.device) -> Text:
    """The text tower of a models job's network, as rib.models.convert.store_text left it."""
    facts = read_json(model_folder / "model.json")
    check_arguments("open_clip", facts["arguments"], str(model_folder / "model.json"))
    tower = create("open_clip", facts["architecture"], facts["arguments"]).eval()
    del tower.visual
    tower.load_state_dict(
        safetensors.torch.load_file(text_folder / "tower.safetensors"), strict=True
    )
    return Text(tower.to(device), **safetensors.torch.load_file(text_folder / "tokens.safetensors"))

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
    """The text tower of an open_clip model, with tokens, so that no tokenizer is needed.

    L is the context length.
    """

    tower: nn.Module  # the model without its image tower, on the device
    # (outputs, templates, L) int32, tokens of the prompts of each class that the network knows
    prompts: Tensor
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
        if self.tower.logit_bias is None:
            return logits
        return logits + self.tower.logit_bias

    def random(self, number: int, length: int, draws: np.random.Generator) -> Tensor:
        """Tokens (number, L) of texts of `length` words that are drawn uniformly.

        Raises a ValueError if the context is too short.
        """
        longest = len(self.after) - 1
        if length > longest:
            raise ValueError(f"its texts have room for {longest} tokens, not for {length}")
        drawn = draws.integers(len(self.words), size=(number, length))
        words = self.words[torch.from_numpy(drawn)]
        # The words take the place of padding.
        end_of_text = self.after[:1]
        padding = self.after[1 + length :]
        end = torch.cat([end_of_text, padding])
        return torch.cat([self.before.expand(number, -1), words, end.expand(number, -1)], dim=1)


@torch.no_grad()
def set_zero_shot_weights(head: nn.Linear, tower: nn.Module, prompts: Tensor) -> None:
    """Let a head on an open_clip model's image features return the model's zero-shot logits.

    Logits are averaged over prompts. A SigLIP model's bias is the same for all classes, so it
    changes neither predictions nor cross-entropy; its training objective has no softmax over
    classes, so its confidences are not comparable with those of other models.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4; open_clip,
    zero_shot_classifier.py; Zhai et al. 2023 (arXiv 2303.15343), algorithm 1.

    Args:
        head: changed in place.
        tower: the model with its text tower.
        prompts: see `Text`.
    """
    for start in range(0, len(prompts), CLASSES):
        tokens = prompts[start : start + CLASSES].to(head.weight.device)
        classes, templates, _ = tokens.shape
        features = tower.encode_text(tokens.flatten(0, 1), normalize=True)
        features_of_classes = features.view(classes, templates, -1).mean(dim=1)
        weight = tower.logit_scale.exp() * F.normalize(features_of_classes, dim=1)
        head.weight[start : start + CLASSES] = weight
    head.bias.fill_(0.0 if tower.logit_bias is None else tower.logit_bias.item())


def prompt_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> Tensor:
    """Tokens (classes, templates, L) int32 of the prompts of classes.

    Args:
        class_names: None for those of ImageNet.
    """
    import open_clip

    tokens_of_classes = []
    for class_name in class_names or open_clip.IMAGENET_CLASSNAMES:
        prompts = [template(class_name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
        tokens_of_classes.append(tokenizer(prompts))
    return torch.stack(tokens_of_classes).int()


def text_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> dict[str, Tensor]:
    """The tokens that `Text` has, by attribute."""
    empty_text, one_letter = tokenizer(["", "a"]).int()
    # The first token in which they differ is where the words begin.
    start = int((empty_text != one_letter).int().argmax())
    vocabulary_size = getattr(tokenizer, "tokenizer", tokenizer).vocab_size
    all_tokens = torch.arange(vocabulary_size, dtype=torch.int32)
    return {
        "prompts": prompt_tokens(tokenizer, class_names),
        "before": empty_text[:start].clone(),
        "after": empty_text[start:].clone(),
        "words": all_tokens[~torch.isin(all_tokens, empty_text)],
    }


def load_text(model_folder: Path, text_folder: Path, device: torch.device) -> Text:
    """The text tower of a models job's network, as rib.models.convert.store_text left it."""
    description = model_folder / "model.json"
    facts = read_json(description)
    check_arguments("open_clip", facts["arguments"], str(description))
    tower = create("open_clip", facts["architecture"], facts["arguments"]).eval()
    del tower.visual
    weights = safetensors.torch.load_file(text_folder / "tower.safetensors")
    tower.load_state_dict(weights, strict=True)
    tokens = safetensors.torch.load_file(text_folder / "tokens.safetensors")
    return Text(tower.to(device), **tokens)

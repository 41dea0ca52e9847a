"""Text towers of image-text models, for methods that train with texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.files import read_json
from rib.models.device import autocast
from rib.models.full_precision import unit_norm
from rib.models.images import to_device
from rib.models.network import create
from rib.schema.model_arguments import check_arguments

CLASSES = 10  # classes whose prompts are encoded at once, as open_clip does


class TextTower(nn.Module):
    """The attributes of open_clip's models that the workflow uses, for the type checker.

    The models are not instances of this class.
    """

    logit_scale: nn.Parameter  # logarithm of the factor of similarities, a scalar
    logit_bias: nn.Parameter | None  # scalar; None unless pretrained with a sigmoid loss

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Features (N, d) of tokens (N, L), of unit norm if `normalize` is true."""
        raise NotImplementedError


@dataclass(frozen=True)
class Text:
    """An open_clip model's text tower, with tokens in place of a tokenizer.

    L is the context length.
    """

    tower: TextTower  # the model without its image tower, on the device
    prompts: Tensor  # (outputs, templates, L) int32, prompts of each class of the network
    before: Tensor  # (s,) int32, tokens of a text before its words: the start
    after: Tensor  # (L - s,) int32, tokens of a text without words after its start: end, padding
    words: Tensor  # (V,) int32, all tokens except start, end and padding

    def encode(self, tokens: Tensor) -> Tensor:
        """Unit-norm features (N, d) of tokens (N, L)."""
        device = self.tower.logit_scale.device
        with autocast(device):
            features = self.tower.encode_text(to_device(tokens, device))
        return unit_norm(features.float())

    def similarities(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Logits (N, M) of unit-norm features of images (N, d) and of texts (M, d), see `encode`.

        They are inner products, scaled and shifted as in pretraining.
        """
        logits = self.tower.logit_scale.exp() * image_features.float() @ text_features.T
        if self.tower.logit_bias is None:
            return logits
        return logits + self.tower.logit_bias

    def random(self, number: int, length: int, draws: np.random.Generator) -> Tensor:
        """Tokens (number, L) of random texts of `length` words, for Lipsum-FT.

        Words are drawn uniformly. A text of two words is start, word, word, end, padding.

        Raises:
            ValueError: the context is too short.
        """
        end_of_text = self.after[:1]
        padding_of_empty_text = self.after[1:]
        most_words = len(padding_of_empty_text)
        if length > most_words:
            raise ValueError(f"its texts have room for {most_words} tokens, not for {length}")
        numbers_of_words = draws.integers(len(self.words), size=(number, length))
        words = self.words[torch.from_numpy(numbers_of_words)]
        # Each word replaces a token of padding.
        padding = padding_of_empty_text[length:]
        after_words = torch.cat([end_of_text, padding])
        before_of_texts = self.before.expand(number, -1)
        after_of_texts = after_words.expand(number, -1)
        return torch.cat([before_of_texts, words, after_of_texts], dim=1)


@torch.no_grad()
def set_zero_shot_weights(head: nn.Linear, tower: TextTower, prompts: Tensor) -> None:
    """Make a head give an open_clip model's zero-shot logits, in place.

    Features of a class are averaged over its prompts. A SigLIP model's bias is the same for all
    classes and changes neither predictions nor cross-entropy; since SigLIP was not trained with a
    softmax over classes, its confidences are not comparable with other models' confidences.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4; open_clip,
    zero_shot_classifier.py; Zhai et al. 2023 (arXiv 2303.15343), algorithm 1.

    Args:
        prompts: tokens (classes, templates, L).
    """
    for start in range(0, len(prompts), CLASSES):
        tokens = prompts[start : start + CLASSES].to(head.weight.device)
        classes, templates, _ = tokens.shape
        features_of_prompts = tower.encode_text(tokens.flatten(0, 1), normalize=True)
        features_of_classes = features_of_prompts.view(classes, templates, -1).mean(dim=1)
        weight = tower.logit_scale.exp() * F.normalize(features_of_classes, dim=1)
        head.weight[start : start + CLASSES] = weight
    bias = 0.0
    if tower.logit_bias is not None:
        bias = tower.logit_bias.item()
    head.bias.fill_(bias)


def prompt_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> Tensor:
    """Tokens (classes, templates, L) int32 of prompts such as "a photo of a dog."

    Args:
        tokenizer: from N texts to tokens (N, L).
        class_names: None for ImageNet's class names.
    """
    import open_clip

    tokens_of_classes = []
    for class_name in class_names or open_clip.IMAGENET_CLASSNAMES:
        prompts = [template(class_name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
        tokens_of_classes.append(tokenizer(prompts))
    return torch.stack(tokens_of_classes).int()


def text_tokens(tokenizer: Callable, class_names: Sequence[str] | None) -> dict[str, Tensor]:
    """The attributes `prompts`, `before`, `after` and `words` of a `Text`, by name.

    Args:
        tokenizer: from N texts to tokens (N, L).
        class_names: None for ImageNet's.
    """
    empty_text, one_letter = tokenizer(["", "a"]).int()
    # Words begin where a text with a word first differs from an empty text.
    first_word = int((empty_text != one_letter).int().argmax())
    # open_clip wraps a tokenizer from the hub.
    vocabulary: Any = getattr(tokenizer, "tokenizer", tokenizer)
    all_tokens = torch.arange(vocabulary.vocab_size, dtype=torch.int32)
    is_word = ~torch.isin(all_tokens, empty_text)
    return {
        "prompts": prompt_tokens(tokenizer, class_names),
        "before": empty_text[:first_word].clone(),
        "after": empty_text[first_word:].clone(),
        "words": all_tokens[is_word],
    }


def load_text(model_folder: Path, text_folder: Path, device: torch.device) -> Text:
    """Text tower of a converted model, from the files of rib.models.convert.store_text."""
    description = model_folder / "model.json"
    facts = read_json(description)
    check_arguments("open_clip", facts["arguments"], str(description))
    both_towers = create("open_clip", facts["architecture"], facts["arguments"]).eval()
    tower = cast(TextTower, both_towers)
    del tower.visual
    weights = safetensors.torch.load_file(text_folder / "tower.safetensors")
    tower.load_state_dict(weights, strict=True)
    tokens = safetensors.torch.load_file(text_folder / "tokens.safetensors")
    return Text(tower.to(device), **tokens)

"""A small open_clip model at random weights, taken apart as methods get it.

With a tokenizer of letters.
"""

import copy
import json
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from rib.catalog.label_space import LabelSpace
from rib.models.network import OpenClipClassifier, create, embedding_width
from rib.models.text import Text, set_zero_shot_weights, text_tokens
from tiny.models.architectures import ARCHITECTURES

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
TEMPLATES = (lambda name: f"a {name}", lambda name: f"my {name}", lambda name: f"{name}s")
SPACE = LabelSpace(("a", "b", "c"), ((1, 5), (2,), (0, 3, 4)), ("a", "b", "c"))  # of the names


class Letters:
    """A tokenizer of at most six letters, for the context of tiny.models.architectures."""

    vocab_size = 64

    def __call__(self, texts):
        """Tokens (texts, 8): a start, the last six letters, an end, and zeros up to the length."""
        tokens_of_texts = []
        for text in texts:
            tokens_of_letters = [1 + ord(letter) % 61 for letter in text[-6:]]
            tokens = [62, *tokens_of_letters, 63]
            padding = [0] * (8 - len(tokens))
            tokens_of_texts.append(tokens + padding)
        return torch.tensor(tokens_of_texts)


def open_clip_model(name="clip_vit"):
    """A whole model of tiny.models.architectures, whose weights are always the same."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = create(architecture.library, architecture.architecture, architecture.arguments).eval()
    for parameter in model.parameters():
        is_matrix = parameter.squeeze().ndim >= 2
        deviation = 0.05 if is_matrix else 0.2
        parameter.data += deviation * torch.randn_like(parameter)
    return model


def taken_apart(model, name="clip_vit"):
    """Copies of a model's network, with a zero-shot head for NAMES, and of its text tower.

    The tokenizer is Letters. Prompts are made with open_clip's templates, in whose place tests put
    TEMPLATES.
    """
    model = copy.deepcopy(model)
    architecture = ARCHITECTURES[name]
    visual = model.visual
    del model.visual
    width = embedding_width(architecture.architecture, architecture.arguments)
    network = OpenClipClassifier(visual, width, len(NAMES)).eval()
    text = Text(model, **text_tokens(Letters(), NAMES))
    set_zero_shot_weights(network.head, model, text.prompts)
    return network, text


def photos(name="clip_vit", n=10):
    """Images (n, side, side, 3) of noise, labels and label space, of three classes."""
    side = ARCHITECTURES[name].size
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return SimpleNamespace(images=pixels, rows=None, labels=np.arange(n) % 3, space=SPACE)


def words():
    """Files, as bytes by name, of a tokenizer that knows a few words."""
    vocabulary = {
        word: number
        for number, word in enumerate(["[PAD]", "[UNK]", "a", "photo", "of", "the", "goldfish"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(configuration).encode(),
    }

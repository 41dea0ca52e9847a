"""A small CLIP with a head, written here, whose state dict has the names of wise-ft's classes.

It is the reference for weights that were trained elsewhere. Names follow mlfoundations/wise-ft,
src/models/modeling.py (lines 13, 39-49 and 65-66) and clip/model.py (CLIP and VisualTransformer).
"""

import torch
from torch import Tensor, nn

WIDTH = 16
HEADS = 2
PATCH = 16
TOKENS = 5  # a class token and 2 x 2 patches
FEATURES = 8
SCALE = 100.0  # CLIP's exponential of logit_scale after training


def add(parent: nn.Module, **children: nn.Module) -> nn.Module:
    """A module with named children."""
    for name, child in children.items():
        parent.add_module(name, child)
    return parent


class Block(nn.Module):
    """A residual block of attention and a perceptron."""

    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH)
        hidden = 4 * WIDTH
        self.mlp = add(nn.Module(), c_fc=nn.Linear(WIDTH, hidden), c_proj=nn.Linear(hidden, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        hidden = nn.functional.gelu(self.mlp.c_fc(self.ln_2(tokens)))
        return tokens + self.mlp.c_proj(hidden)


class VisionTransformer(nn.Module):
    """The image tower: features (N, FEATURES) of images (N, 3, 32, 32), of any length."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = add(nn.Module(), resblocks=nn.Sequential(Block()))
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.randn(WIDTH, FEATURES))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        class_tokens = self.class_embedding.expand(len(images), 1, WIDTH)
        tokens = torch.cat([class_tokens, patches], dim=1) + self.positional_embedding
        tokens = self.transformer.resblocks(self.ln_pre(tokens))
        return self.ln_post(tokens[:, 0]) @ self.proj


class Clip(nn.Module):
    """The image tower, and what wise-ft keeps of the text tower."""

    def __init__(self):
        super().__init__()
        self.visual = VisionTransformer()
        self.positional_embedding = nn.Parameter(torch.randn(8, WIDTH))
        self.text_projection = nn.Parameter(torch.randn(WIDTH, FEATURES))
        self.logit_scale = nn.Parameter(torch.tensor(SCALE).log())
        self.token_embedding = nn.Embedding(64, WIDTH)
        self.ln_final = nn.LayerNorm(WIDTH)


class ImageClassifier(nn.Module):
    """Logits (N, C) of images; the zero-shot head has the logit scale in its weights."""

    def __init__(self, num_classes: int, bias: bool):
        super().__init__()
        self.image_encoder = add(nn.Module(), model=Clip())
        self.classification_head = nn.Linear(FEATURES, num_classes, bias=bias)
        directions = nn.functional.normalize(torch.randn(num_classes, FEATURES), dim=1)
        scale = self.image_encoder.model.logit_scale.exp()
        self.classification_head.weight.data = (scale * directions).detach()

    def forward(self, images: Tensor) -> Tensor:
        features = self.image_encoder.model.visual(images)
        norms = features.square().sum(dim=1, keepdim=True).sqrt()
        return self.classification_head(features / norms)

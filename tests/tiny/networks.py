"""Small networks."""

import torch
from open_clip.transformer import VisionTransformer

from rib.models.network import OpenClipClassifier


def clip_like(num_classes: int = 1000) -> OpenClipClassifier:
    """A tower like CLIP's for images of 64 pixels, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=64, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, output_dim=24
    )
    return OpenClipClassifier(tower, 24, num_classes).eval()

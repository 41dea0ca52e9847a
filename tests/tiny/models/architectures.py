"""Small networks at random weights of the architecture families that users name.

They are made of the libraries' own classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest
import timm
import torch
from timm.models import register_model

from rib.models.network import build


@dataclass(frozen=True)
class Architecture:
    """A registered architecture, made small by keyword arguments of the library's create_model.

    Attributes:
        type: `vit` or `cnn`.
        size: side of the input images in pixels.
    """

    library: str
    architecture: str
    type: str
    arguments: Mapping
    size: int = 64

    def build(self, num_classes: int = 1000, **rates: float) -> torch.nn.Module:
        """The network, whose weights are always the same; rates are dropout and drop_path.

        Noise is added to the weights, since some initial scales are 0: with these, random blocks
        and heads would change nothing.
        """
        torch.manual_seed(0)
        model = build(
            self.library, self.architecture, num_classes, arguments=self.arguments, **rates
        )
        for parameter in model.parameters():
            is_matrix = parameter.squeeze().ndim >= 2
            deviation = 0.02 if is_matrix else 0.2
            parameter.data += deviation * torch.randn_like(parameter)
        return model


def small_trunk(architecture: str, **arguments) -> str:
    """Register a small variant of a timm architecture with timm; gives its name.

    It is for open_clip, which passes no arguments on to timm.
    """

    def make(pretrained: bool = False, **arguments_of_caller):
        return timm.create_model(architecture, **{**arguments, **arguments_of_caller})

    make.__name__ = f"small_{architecture}"
    return register_model(make).__name__


VIT = {"depth": 4, "embed_dim": 32, "num_heads": 2, "img_size": 64}
VIT_14 = VIT | {"img_size": 56}  # with patches of 14 pixels
NAFLEX = {
    "depth": 4,
    "embed_dim": 32,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "pos_embed_grid_size": (4, 4),
}
PE = VIT | {"attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 2.0}
FASTVIT = {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 128)}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
SWIN = {
    "depths": (1, 1, 2, 1),
    "embed_dim": 16,
    "num_heads": (1, 2, 2, 4),
    "img_size": 64,
    "window_size": 4,
}
RESNET = {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64)}

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
SIGLIP = {"embed_dim": 32, "custom_text": True, "init_logit_bias": -10}


def clip(vision: Mapping, **changes) -> dict:
    """Arguments for an open_clip model with this configuration of its image tower.

    Args:
        changes: other keys of the model's configuration.
    """
    configuration = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, **vision},
        "text_cfg": TEXT,
        **changes,
    }
    return {"model_cfg": configuration}


def trunk(
    architecture: str, pool: str, proj: str | None = None, size: int = 64, **arguments
) -> dict:
    """Configuration of an open_clip image tower that is a small timm network.

    Args:
        pool, proj: open_clip's `timm_pool` and `timm_proj`.
        size: side of the input images in pixels.
        arguments: of timm's create_model, which make the network small.
    """
    name = small_trunk(architecture, **arguments)
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": size}


SIGLIP_TOWER = trunk("vit_base_patch16_siglip_224", "map", "none", **VIT)
SIGLIP_2_TOWER = trunk("vit_so400m_patch14_siglip_224", "map", "none", 56, **VIT_14)
EVA_TOWER = trunk("eva02_base_patch16_clip_224", "token", **VIT)
PE_TOWER = trunk("vit_pe_core_base_patch16_224", "map", **PE)
FASTVIT_TOWER = trunk("fastvit_mci0", "avg", **FASTVIT)
FASTVIT_OF_FIVE_STAGES_TOWER = trunk(
    "fastvit_mci3", "avg", layers=(1, 1, 1, 1, 1), embed_dims=(16, 32, 64, 64, 128)
)
MCI_TOWER = trunk("vit_base_mci_224", "token", img_size=64, depth=2, num_heads=2, mlp_ratio=0.125)
CONVNEXT_TOWER = trunk("convnext_base", "", "linear", **CONVNEXT)
CONVNEXT_MLP_TOWER = trunk("convnext_large", "", "mlp", **CONVNEXT)
CLIP_VIT_TOWER = {"patch_size": 16, "width": 32, "layers": 4, "head_width": 16}
CLIP_RESNET_TOWER = {"layers": [1, 1, 1, 1], "width": 8}

ARCHITECTURES = {
    "vit": Architecture("timm", "vit_small_patch16_224", "vit", VIT),
    "vit_rope": Architecture("timm", "vit_small_patch16_rope_224", "vit", VIT),
    "vit_rope_mixed": Architecture("timm", "vit_small_patch16_rope_mixed_224", "vit", VIT),
    "vit_rope_registers": Architecture("timm", "vit_base_patch16_rope_reg1_gap_256", "vit", VIT),
    "deit_distilled": Architecture("timm", "deit_tiny_distilled_patch16_224", "vit", VIT),
    "beit": Architecture("timm", "beit_base_patch16_224", "vit", VIT),
    "dinov2": Architecture("timm", "vit_small_patch14_dinov2", "vit", VIT_14, 56),
    "dinov2_registers": Architecture("timm", "vit_small_patch14_reg4_dinov2", "vit", VIT_14, 56),
    "dinov3": Architecture("timm", "vit_small_patch16_dinov3", "vit", VIT),
    "dinov3_qkv_bias": Architecture("timm", "vit_small_plus_patch16_dinov3_qkvb", "vit", VIT),
    "siglip": Architecture("timm", "vit_base_patch16_siglip_224", "vit", VIT),
    "siglip_gap": Architecture("timm", "vit_base_patch16_siglip_gap_224", "vit", VIT),
    "siglip2": Architecture("timm", "vit_so400m_patch14_siglip_224", "vit", VIT_14, 56),
    "siglip2_naflex": Architecture("timm", "naflexvit_base_patch16_siglip", "vit", NAFLEX),
    "siglip_clip": Architecture(
        "open_clip", "ViT-B-16-SigLIP", "vit", clip(SIGLIP_TOWER, **SIGLIP)
    ),
    "siglip2_clip": Architecture(
        "open_clip", "ViT-SO400M-14-SigLIP2", "vit", clip(SIGLIP_2_TOWER, **SIGLIP), 56
    ),
    "eva02": Architecture("timm", "eva02_tiny_patch14_224", "vit", VIT_14, 56),
    "eva02_separate": Architecture("timm", "eva02_base_patch14_224", "vit", VIT_14, 56),
    "eva02_clip": Architecture("open_clip", "EVA02-B-16", "vit", clip(EVA_TOWER)),
    "pe_core": Architecture("timm", "vit_pe_core_tiny_patch16_384", "vit", PE),
    "pe_spatial": Architecture("timm", "vit_pe_spatial_tiny_patch16_512", "vit", VIT),
    "pe_clip": Architecture("open_clip", "PE-Core-B-16", "vit", clip(PE_TOWER)),
    "aimv2": Architecture("timm", "aimv2_large_patch14_224", "vit", VIT_14, 56),
    "fastvit": Architecture("timm", "fastvit_mci0", "cnn", FASTVIT),
    "mobileclip2": Architecture("open_clip", "MobileCLIP2-S0", "cnn", clip(FASTVIT_TOWER)),
    "mobileclip2_large": Architecture(
        "open_clip", "MobileCLIP2-S3", "cnn", clip(FASTVIT_OF_FIVE_STAGES_TOWER)
    ),
    # its stem has 768 channels
    "mobileclip2_vit": Architecture("open_clip", "MobileCLIP2-B", "vit", clip(MCI_TOWER)),
    "convnext": Architecture("timm", "convnext_tiny", "cnn", CONVNEXT),
    "convnext_mlp_head": Architecture(
        "timm", "convnext_tiny", "cnn", CONVNEXT | {"head_hidden_size": 16}
    ),
    "convnextv2": Architecture("timm", "convnextv2_tiny", "cnn", CONVNEXT),
    "convnext_clip": Architecture("open_clip", "convnext_base", "cnn", clip(CONVNEXT_TOWER)),
    "convnext_clip_mlp": Architecture(
        "open_clip", "convnext_large_d", "cnn", clip(CONVNEXT_MLP_TOWER)
    ),
    "swin": Architecture("timm", "swin_tiny_patch4_window7_224", "vit", SWIN),
    "swinv2": Architecture("timm", "swinv2_tiny_window8_256", "vit", SWIN),
    "swinv2_cr": Architecture("timm", "swinv2_cr_tiny_224", "vit", SWIN),
    "resnet": Architecture("timm", "resnet50", "cnn", RESNET),
    "bit": Architecture("timm", "resnetv2_50", "cnn", RESNET | {"stem_chs": 8}),
    "efficientnet": Architecture("timm", "efficientnet_b0", "cnn", {}),
    "clip_vit": Architecture("open_clip", "ViT-B-16", "vit", clip(CLIP_VIT_TOWER)),
    "clip_resnet": Architecture("open_clip", "RN50", "cnn", clip(CLIP_RESNET_TOWER)),
}

# One of each kind, which `make test` tries: attention, windows, convolutions, both; of timm and of
# open_clip.
EXAMPLES = {"vit", "swin", "resnet", "clip_vit", "mobileclip2"}


def cases(names: Iterable[str]) -> list:
    """Parameters of a test: names of architectures.

    `make test` tries the examples among them, `make test-all` all.
    """
    return [
        pytest.param(name, marks=() if name in EXAMPLES else pytest.mark.thorough) for name in names
    ]

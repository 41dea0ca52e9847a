"""Parameters that the released code of ImageNet-RIB trains in ViTs besides the head."""

import re

from torch import nn

# Parameters in timm's and open_clip's ViTs, NaFlexViT and Swin. `trunk` is a network of timm as
# open_clip's image tower.
IN_BLOCKS = re.compile(
    r"(visual\.)?(trunk\.)?(patch_embed|embeds\.proj|blocks|layers|stages|conv1|transformer)\."
)


def outside_blocks(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters of a ViT outside the patch embedding and the blocks, such as `cls_token`."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if not IN_BLOCKS.match(name)
    ]

"""Networks of runs, ready for inference."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.fuse_batch_norm import EXAMPLE, fuse_batch_norm
from rib.models.images import Images
from rib.models.merge import Merge, Mixture
from rib.models.network import load
from rib.schema.run import ENSEMBLE


def network_in_state(
    folder: Path, mixture: Mixture, checkpoints: Mapping[str, Path], images: Images
) -> nn.Module:
    """The network of a run, in evaluation mode, on the device of the images.

    Args:
        folder: output of the conversion, with the pretrained network.
        mixture: coefficients of an average, such as {"pretrained": 0.5, "ft": 0.5}, or a merge.
        checkpoints: file of each key, such as {"ft": Path("checkpoint.safetensors")}; the
            pretrained network needs none.

    Raises:
        UserError: a merged model has a padding prompt, or an algorithm refuses its parents.
    """
    pretrained, _ = load(folder, images.device)
    model = apply(pretrained, mixture, checkpoints).eval()
    return for_inference(model, mixture, images)


def for_inference(model: nn.Module, mixture: Mixture, images: Images) -> nn.Module:
    """Make a network in evaluation mode faster, in place; return it, compiled if asked for."""
    # The networks of an ensemble may use each other's weights.
    is_ensemble = isinstance(mixture, Merge) and mixture.form == ENSEMBLE
    # On a GPU the gain is small, and bf16 rounds the fused weights again.
    if images.device.type == "cpu" and not is_ensemble:
        fuse_batch_norm(model, images[slice(EXAMPLE)])
    return devices.compiled(model)

import pytest
import timm
import torch
from torch import nn

from rib.models.fold import fold_batch_norm


def with_statistics(model):
    """Random BatchNorm statistics and scales, so that folding them has an effect."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1, 1),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 2),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "tf_efficientnet_lite0", "test_vit"])
def test_folding_changes_logits_by_rounding_only(name):
    torch.manual_seed(0)
    model = with_statistics(timm.create_model(name, num_classes=10)).double()
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        before = model(images)
        after = fold_batch_norm(model, images)(images)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


class Shared(nn.Module):
    """A convolution whose output is used beside its BatchNorm too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


def test_a_convolution_that_is_used_elsewhere_is_left_alone():
    model = with_statistics(Shared())
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        before = model(images)
        assert torch.equal(fold_batch_norm(model, images)(images), before)
    assert isinstance(model.norm, nn.BatchNorm2d)

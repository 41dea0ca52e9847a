import pytest
import timm
import torch
from torch import nn

from rib.models.fuse_batch_norm import frozen_copy, fuse_batch_norm


def with_statistics(model):
    """Random BatchNorm statistics and scales, so that fusing them has an effect."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=generator)
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.5, 2, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "tf_efficientnet_lite0", "test_vit"]
)
def test_fusing_changes_logits_by_rounding_only(name):
    torch.manual_seed(0)
    model = with_statistics(timm.create_model(name, num_classes=10)).double()
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        before = model(images)
        after = fuse_batch_norm(model, images)(images)
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
        assert torch.equal(fuse_batch_norm(model, images)(images), before)
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_a_frozen_copy_computes_the_same_and_leaves_the_network_alone():
    model = with_statistics(timm.create_model("test_resnet", num_classes=10))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = frozen_copy(model, images)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), model(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    assert found is not model and model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Between(nn.Module):
    """A BatchNorm after a layer that is no convolution, and one whose convolution has a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.norm = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)
        self.conv, self.last = nn.Conv2d(4, 5, 3, bias=True), nn.BatchNorm2d(5)

    def forward(self, x):
        return self.last(self.conv(self.norm(self.act(self.first(x)))))


def test_only_what_directly_follows_a_convolution_is_fused():
    torch.manual_seed(0)
    model, images = with_statistics(Between()), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        before = model(images)
        assert fuse_batch_norm(model, images) is model
        torch.testing.assert_close(model(images), before, rtol=1e-5, atol=1e-5)
    assert isinstance(model.norm, nn.BatchNorm2d) and not isinstance(model.last, nn.BatchNorm2d)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_fusing_is_taken_back_where_it_moves_logits_by_more_than_rounding(caplog):
    class Slightly(Shared):
        share = 0.0

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + self.share * x

    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    for share, fused in ((1e-5, True), (0.02, False)):
        model = with_statistics(Slightly())
        model.share = share
        conv, norm = model.conv, model.norm
        fuse_batch_norm(model, images)
        assert isinstance(model.norm, nn.BatchNorm2d) is not fused
        assert fused or (model.conv is conv and model.norm is norm)
        assert bool(caplog.records) is not fused

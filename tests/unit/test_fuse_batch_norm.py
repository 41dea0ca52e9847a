"""BatchNorm is fused into the convolution before it where logits stay the same."""

import pytest
import timm
import torch
from torch import nn

from rib.models.fuse_batch_norm import frozen_copy, fuse_batch_norm


def with_statistics(model):
    """Random BatchNorm statistics and scales, so that fusing them has an effect."""
    generator = torch.Generator().manual_seed(0)
    for norm in batch_norms(model):
        norm.running_mean.uniform_(-1, 1, generator=generator)
        for tensor in (norm.running_var, norm.weight):
            tensor.data.uniform_(0.5, 2, generator=generator)
    return model.eval()


def batch_norms(model):
    """The BatchNorm layers of a network."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def noise(*shape):
    """Images of noise, always the same for a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_fusing_changes_logits_by_rounding_only(name):
    # given
    torch.manual_seed(0)
    model = with_statistics(timm.create_model(name, num_classes=10)).double()
    assert batch_norms(model)
    images = noise(2, 3, 160, 160).double()
    # when
    with torch.inference_mode():
        logits_before = model(images)
        logits_after = fuse_batch_norm(model, images)(images)
    # then
    torch.testing.assert_close(logits_after, logits_before, rtol=1e-9, atol=1e-9)
    assert batch_norms(model) == []


class Shared(nn.Module):
    """A convolution whose output is used beside its BatchNorm too.

    Args:
        share: of the output that is used directly.
    """

    def __init__(self, share=1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.share = share

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + self.share * x


def test_a_convolution_that_is_used_elsewhere_is_left_alone():
    # given
    torch.manual_seed(0)
    model = with_statistics(Shared())
    images = noise(2, 3, 8, 8)
    with torch.inference_mode():
        logits_before = model(images)
        # when
        logits_after = fuse_batch_norm(model, images)(images)
    # then
    assert torch.equal(logits_after, logits_before)
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_a_frozen_copy_computes_the_same_and_leaves_the_network_alone():
    # given
    torch.manual_seed(0)
    model = with_statistics(timm.create_model("test_resnet", num_classes=10))
    images = noise(2, 3, 64, 64)
    state_before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    number_of_norms = len(batch_norms(model))
    assert number_of_norms > 0
    # when
    fused = frozen_copy(model, images)
    # then
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), model(images), rtol=1e-4, atol=1e-4)
    assert fused is not model
    assert batch_norms(fused) == []
    assert len(batch_norms(model)) == number_of_norms
    state_after = model.state_dict()
    assert state_after.keys() == state_before.keys()
    for name, tensor in state_after.items():
        assert torch.equal(tensor, state_before[name]), name


class Between(nn.Module):
    """A BatchNorm after a layer that is no convolution, and one whose convolution has a bias."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 5, 3, bias=True)
        self.last = nn.BatchNorm2d(5)

    def forward(self, x):
        activations = self.act(self.first(x))
        return self.last(self.conv(self.norm(activations)))


def test_only_what_directly_follows_a_convolution_is_fused():
    # given
    torch.manual_seed(0)
    model = with_statistics(Between())
    images = noise(2, 3, 8, 8)
    with torch.inference_mode():
        logits_before = model(images)
        # when
        fused = fuse_batch_norm(model, images)
        logits_after = model(images)
    # then
    assert fused is model
    torch.testing.assert_close(logits_after, logits_before, rtol=1e-5, atol=1e-5)
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert not isinstance(model.last, nn.BatchNorm2d)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_fusing_is_taken_back_where_it_moves_logits_by_more_than_rounding(caplog):
    # given two networks whose logits would be moved by little and by much
    torch.manual_seed(0)
    images = noise(2, 3, 8, 8)
    moved_by_rounding = with_statistics(Shared(share=1e-5))
    moved_by_more = with_statistics(Shared(share=0.02))
    conv = moved_by_more.conv
    norm = moved_by_more.norm
    # when
    fuse_batch_norm(moved_by_rounding, images)
    # then
    assert not isinstance(moved_by_rounding.norm, nn.BatchNorm2d)
    assert caplog.messages == []
    # when
    fuse_batch_norm(moved_by_more, images)
    # then
    assert moved_by_more.conv is conv
    assert moved_by_more.norm is norm
    (message,) = caplog.messages
    assert message.startswith("BatchNorm is not fused: logits would change by ")

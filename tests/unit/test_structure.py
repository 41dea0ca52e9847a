"""What two networks that were built in the same way differ in."""

import copy
from functools import partial

import pytest
import timm
import torch
from torch import nn

from rib.models.network import build
from rib.models.structure import changed_tensor, structural_difference


class Net(nn.Module):
    """A network with attributes of many kinds."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.offset = torch.zeros(1)
        self.temperature = float("nan")
        self.sizes = [1, (2, 3)]
        self.kind = nn.ReLU
        self.pool = partial(torch.mean, dim=(2, 3))
        self.norm = torch.relu
        self.cache = {}
        self.layers[0].register_forward_pre_hook(lambda module, inputs: None)

    def forward(self, images):
        self.cache[len(images)] = images
        return self.norm(self.pool(self.layers(images)) * self.scale + self.offset)


@pytest.fixture
def networks():
    """Two equal ones, of which the first may be changed."""
    network, reference = Net(), Net()
    reference.load_state_dict(network.state_dict())
    return network, reference


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "levit_128s", "fastvit_t8"])
def test_two_loads_do_not_differ_also_after_use(architecture):
    network, reference = build("timm", architecture), build("timm", architecture)
    reference.load_state_dict(network.state_dict())
    size = timm.get_pretrained_cfg(architecture).input_size
    with torch.inference_mode():
        network(torch.zeros(1, *size))
    network.train()
    for one in (network, copy.deepcopy(network)):
        assert (
            structural_difference(one, reference) is None and changed_tensor(one, reference) is None
        )


def test_equal_networks_do_not_differ(networks):
    network, reference = networks
    network.eval()(torch.zeros(1, 3, 2, 2))
    network.requires_grad_(False)
    network.note = "mine"
    assert structural_difference(network, reference, ignored=["note"]) is None
    assert "'note'" in structural_difference(network, reference)
    assert changed_tensor(network, reference) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda net: net.register_forward_hook(print), "the network has other hooks"),
        (lambda net: net.layers[1].register_forward_pre_hook(print), "'layers.1' has other hooks"),
        (lambda net: net.layers[0]._forward_pre_hooks.clear(), "'layers.0' has other hooks"),
        (lambda net: net.layers.append(nn.Identity()), "'layers.3' is a Identity"),
        (lambda net: net.layers.pop(2), "'layers.2' is missing"),
        (
            lambda net: net.layers._modules.update({"0": net.layers._modules.pop("0")}),
            "another order",
        ),
        (lambda net: net.set_submodule("layers.2", nn.GELU()), "'layers.2' is a GELU"),
        (lambda net: setattr(net, "forward", lambda images: images), "'forward'"),
        (
            lambda net: setattr(net.layers[2], "forward", torch.tanh),
            "'layers.2' has another 'forward'",
        ),
        (lambda net: setattr(net.layers[0], "stride", (2, 2)), "'layers.0' has another 'stride'"),
        (lambda net: setattr(net.layers[1], "eps", 0.1), "'layers.1' has another 'eps'"),
        (lambda net: setattr(net, "temperature", 1.0), "'temperature'"),
        (lambda net: net.sizes.append(4), "'sizes'"),
        (lambda net: setattr(net, "kind", nn.GELU), "'kind'"),
        (lambda net: setattr(net, "pool", partial(torch.mean, dim=(3, 2))), "'pool'"),
        (lambda net: setattr(net, "pool", partial(torch.sum, dim=(2, 3))), "'pool'"),
        (lambda net: setattr(net, "norm", torch.tanh), "'norm'"),
        (lambda net: delattr(net, "norm"), "'norm'"),
        (lambda net: setattr(net, "cache", []), "'cache'"),
    ],
)
def test_a_difference_is_named(networks, change, named):
    network, reference = networks
    change(network)
    assert named in structural_difference(network, reference)
    assert structural_difference(reference, network) is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda net: net.layers[0].weight.data.add_(1), "layers.0.weight"),
        (lambda net: net.layers[1].running_mean.add_(1), "layers.1.running_mean"),
        (lambda net: net.scale.add_(1), "scale"),
        (lambda net: net.offset.add_(1), "offset"),
        (lambda net: net.double(), "layers.0.weight"),
        (lambda net: net.register_buffer("more", torch.ones(1)), "more"),
        (lambda net: delattr(net, "scale"), "scale"),
        (lambda net: setattr(net.layers[0], "bias", None), "layers.0.bias"),
    ],
)
def test_a_changed_tensor_is_named(networks, change, named):
    network, reference = networks
    change(network)
    assert changed_tensor(network, reference) == named
    assert changed_tensor(reference, network) == named

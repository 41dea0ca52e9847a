"""Surgical fine-tuning trains what it says, and nothing else."""

import copy

import pytest
import timm
import torch
from torch import nn

from rib.methods.surgical import BLOCKS, SurgicalFineTuning, parameter_blocks
from rib.models.network import head_parameters
from tiny.models.architectures import ARCHITECTURES
from tiny.models.training import (
    TRAINING,
    normalised,
    task_of,
    trained,
    trained_by_hand,
    with_defaults,
)

EXPECTED = {  # first names of parameters of block1 to block4, in order of definition
    "resnet": [["conv1", "bn1", "layer1"], ["layer2"], ["layer3"], ["layer4"]],
    "convnext": [["stem", "stages.0"], ["stages.1"], ["stages.2"], ["stages.3", "head.norm"]],
    "efficientnet": [
        ["conv_stem", "bn1", "blocks.0", "blocks.1"],
        ["blocks.2"],
        ["blocks.3", "blocks.4"],
        ["blocks.5", "blocks.6", "conv_head", "bn2"],
    ],
    "vit": [
        ["cls_token", "pos_embed", "patch_embed", "blocks.0"],
        ["blocks.1"],
        ["blocks.2"],
        ["blocks.3", "norm"],
    ],
    "clip_vit": [
        [
            *(
                "visual.class_embedding",
                "visual.positional_embedding",
                "visual.conv1",
                "visual.ln_pre",
            ),
            "visual.transformer.resblocks.0",
        ],
        ["visual.transformer.resblocks.1"],
        ["visual.transformer.resblocks.2"],
        ["visual.proj", "visual.transformer.resblocks.3", "visual.ln_post"],
    ],
    "clip_resnet": [
        [
            *(f"visual.{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn")),
            "visual.layer1",
        ],
        ["visual.layer2"],
        ["visual.layer3"],
        ["visual.layer4", "visual.attnpool"],
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_blocks_are_quarters_of_the_depth_with_what_lies_before_and_after(name):
    network = ARCHITECTURES[name].build()
    found = parameter_blocks(network)
    head = {parameter for parameter, _ in head_parameters(network)}
    for parameter, _ in network.named_parameters():
        block = "head" if parameter in head else None
        for number, starts in enumerate(EXPECTED[name], start=1):
            if block is None and any(
                parameter == start or parameter.startswith(f"{start}.") for start in starts
            ):
                block = f"block{number}"
        assert found[parameter] == block, parameter


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_of_every_architecture_is_in_a_block(name):
    network = ARCHITECTURES[name].build()
    found = parameter_blocks(network)
    assert found.keys() == dict(network.named_parameters()).keys()
    lacking = {"block2"} if name == "mobileclip2_vit" else set()  # it has two blocks
    assert set(found.values()) == {*BLOCKS} - lacking


@pytest.mark.parametrize(
    ("blocks", "parts"),
    [
        (["block1"], ("conv1", "bn1", "layer1")),
        (["block4"], ("layer4",)),
        (["block3", "head"], ("layer3", "fc")),
    ],
    ids=["first", "last", "two"],
)
def test_only_the_chosen_blocks_are_trained_and_as_full_fine_tuning_would(
    network, target, blocks, parts
):
    model, history = trained(
        with_defaults(SurgicalFineTuning, lr=0.02, blocks=blocks), network, target
    )
    by_hand = copy.deepcopy(network)
    kept = [part for key, part in by_hand.named_parameters() if key.split(".")[0] in parts]
    by_hand.parameters = lambda: kept
    pixels = normalised(target.images)
    expected = trained_by_hand(by_hand, pixels, target.labels, target.space, 0.02, TRAINING, 0)
    for row, wanted in zip(history, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)
    for key, value in network.state_dict().items():
        assert torch.equal(model.state_dict()[key], value) == (
            not key.startswith(parts) or "running" in key or "num" in key
        )
        torch.testing.assert_close(
            model.state_dict()[key], by_hand.state_dict()[key], rtol=1e-3, atol=1e-5
        )


def test_a_block_that_does_not_exist_is_refused_with_those_that_do(target):
    with pytest.raises(ValueError, match="should be 'block1', .*'block4' or 'head' .*'block5'"):
        with_defaults(SurgicalFineTuning, lr=0.1, blocks=["block1", "block5"])
    shallow = timm.create_model(
        "vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, img_size=64
    )
    with pytest.raises(
        ValueError, match="blocks names 'block2', .* set some of block1, block3, block4, head$"
    ):
        with_defaults(SurgicalFineTuning, lr=0.1, blocks=["block2"]).setup(task_of(shallow, target))


def test_a_network_without_known_stages_has_no_first_block(target):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    network.get_classifier = lambda: network[1]
    with pytest.raises(ValueError, match="'block1', which does not exist; set some of head$"):
        with_defaults(SurgicalFineTuning, lr=0.1, blocks=["block1"]).setup(task_of(network, target))

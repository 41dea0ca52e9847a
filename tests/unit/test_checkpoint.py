import copy

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rib.base.errors import UserError
from rib.models import device as devices
from rib.models.checkpoint import (
    add_low_rank_updates,
    apply,
    average,
    changed_tensors,
    xor_compress,
    xor_decompress,
)
from rib.models.padding_prompt import PaddingPrompt
from rib.models.state import network_in_state
from tiny.training import CPU, model_folder, resnet

START = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.3]), "steps": torch.tensor(7)}
TUNED = {"w": torch.tensor([3.0, 2.5])}


def test_only_what_changed_is_stored():
    after = {**START, "w": torch.tensor([1.0, 2.5])}
    assert list(changed_tensors(START, after)) == ["w"]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.floats(-1e3, 1e3, width=32))
def test_equal_states_average_to_themselves(weights, value):
    parts = [(weight / sum(weights), {"w": torch.full((2,), value)}) for weight in weights]
    assert torch.equal(average(START, parts)["w"], torch.full((2,), value))


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.0, START["w"]), (0.5, torch.tensor([2.0, 2.25])), (1.0, TUNED["w"])]
)
def test_the_end_points_are_the_parts_themselves_and_the_middle_is_the_mean(alpha, expected):
    found = {**START, **average(START, [(1 - alpha, {}), (alpha, TUNED)])}
    assert torch.equal(found["w"], expected) and torch.equal(found["b"], START["b"])


def test_a_counter_that_differs_cannot_be_averaged():
    with pytest.raises(ValueError, match="'steps'"):
        average(START, [(0.5, {}), (0.5, {"steps": torch.tensor(8)})])


def test_a_tensor_that_moved_little_is_stored_in_less_than_half_and_comes_back_bit_by_bit():
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(64, 100, generator=generator), "steps": torch.tensor(7)}
    moved = {
        "w": start["w"] * (1 + 1e-4 * torch.randn(64, 100, generator=generator)),
        "steps": torch.tensor(8),
    }
    moved["w"][0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    stored = xor_compress(moved, start)
    assert set(stored) == {"w.xor", "steps"} and stored["w.xor"].numel() < moved["w"].nbytes / 2
    back = xor_decompress(stored, start)
    assert back.keys() == moved.keys() and back["steps"] == 8
    assert torch.equal(back["w"].view(torch.int32), moved["w"].view(torch.int32))


def test_a_tensor_that_would_not_shrink_or_has_no_partner_is_stored_as_it_is():
    generator = torch.Generator().manual_seed(0)
    bits = [
        torch.randint(-(2**31), 2**31, (50,), generator=generator, dtype=torch.int64).int()
        for _ in range(2)
    ]
    start, new = ({"w": part.view(torch.float32)} for part in bits)
    new["x.lora_A"] = torch.ones(2)
    assert xor_compress(new, start).keys() == new.keys()
    same = {
        "w": torch.zeros(50),
        "half": torch.zeros(50).half(),
        "count": torch.zeros(50, dtype=torch.int64),
    }
    other = {
        "w": torch.zeros(49),
        "half": torch.zeros(50).half(),
        "count": torch.zeros(50, dtype=torch.int64),
    }
    assert xor_compress(same, other).keys() == same.keys()
    assert xor_compress(same, same).keys() == {"w.xor", "half", "count"}


def test_a_checkpoint_of_another_network_is_refused():
    with pytest.raises(ValueError, match="tensor 'v' that the network lacks"):
        xor_decompress({"v.xor": torch.zeros(3, dtype=torch.uint8)}, START)


def test_weights_count_each_state_and_counters_keep_the_highest():
    counter = "bn.num_batches_tracked"
    start = {
        "w": torch.tensor([1.0, 2.0]),
        "half": torch.tensor([1.0]).half(),
        counter: torch.tensor(3),
    }
    first = {"w": torch.tensor([2.0, 2.0]), counter: torch.tensor(9)}
    second = {
        "w": torch.tensor([1.0, 7.0]),
        "half": torch.tensor([5.0]).half(),
        counter: torch.tensor(5),
    }
    found = average(start, [(0.5, {}), (0.2, first), (0.3, second)])
    torch.testing.assert_close(found["w"], torch.tensor([0.5 + 0.4 + 0.3, 1.0 + 0.4 + 2.1]))
    assert found["half"].dtype == torch.float16 and found["half"].item() == pytest.approx(
        0.7 + 1.5, rel=1e-3
    )
    assert found[counter] == 9 and found.keys() == start.keys()


def test_statistics_of_batch_norm_are_not_extrapolated():
    """Task arithmetic of three parents at 0.4 weighs the pretrained model by -0.2.

    Without a limit, the variance would be 1.2 * 0.01 - 0.2 * 0.1, which is negative.
    """
    start = {"bn.running_var": torch.tensor([0.1]), "bn.weight": torch.tensor([0.1])}
    parts = [
        {"bn.running_var": torch.tensor([value]), "bn.weight": torch.tensor([0.01])}
        for value in (0.01, 0.02, 0.03)
    ]
    found = average(start, [(-0.2, {}), *((0.4, part) for part in parts)])
    assert found["bn.running_var"].item() == pytest.approx(0.02)
    assert found["bn.running_var"].dtype == torch.float32
    assert found["bn.weight"].item() == pytest.approx(-0.008)


def test_states_without_weight_are_no_part_of_an_average():
    broken = {"w": torch.tensor([float("nan"), 0.0]), "steps": torch.tensor(8)}
    assert average(START, [(1.0, {}), (0.0, broken)]) == {}
    same = average(START, [(0.5, {}), (0.5, {"steps": torch.tensor(7)})])
    assert same["steps"] == 7 and same.keys() == {"steps"}


@pytest.mark.parametrize(
    ("weights", "fit"),
    [((0.5, 0.5 + 1e-8), False), ((0.5, 0.5 + 1e-10), True), ((0.6, 0.3), False)],
)
def test_weights_add_up_to_one_but_for_rounding(weights, fit):
    parts = [(weight, TUNED) for weight in weights]
    if fit:
        assert average(START, parts)
    else:
        with pytest.raises(ValueError, match="add up to 1"):
            average(START, parts)


def test_low_rank_updates_are_added_to_the_tensor_that_is_stored_or_the_pretrained_one():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w.lora_A": (2, 3), "w.lora_B": (4, 2), "v.lora_A": (1, 3), "v.lora_B": (2, 1)}
    factors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    start = {
        "w": torch.randn(4, 3, 1, 1, generator=generator),
        "v": torch.randn(2, 3, generator=generator),
    }
    stored = {
        **factors,
        "v": torch.ones(2, 3),
        "padding_prompt.top": torch.ones(1),
        "u": torch.ones(1),
    }
    found = add_low_rank_updates(start, stored)
    assert found.keys() == {"w", "v", "u"}
    update = torch.einsum("or,ri->oi", factors["w.lora_B"], factors["w.lora_A"])
    torch.testing.assert_close(found["w"], start["w"] + update[:, :, None, None])
    torch.testing.assert_close(found["v"], 1 + factors["v.lora_B"] * factors["v.lora_A"])


@pytest.fixture(scope="module")
def network():
    return resnet(7)


def saved(tmp_path, **states):
    for name, tensors in states.items():
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")
    return {name: tmp_path / f"{name}.safetensors" for name in states}


def prompt_of(side, width):
    prompt = PaddingPrompt.of(side, width, CPU)
    for number, strip in enumerate(prompt.parameters()):
        strip.data += number + 1
    return {f"padding_prompt.{name}": strip.detach() for name, strip in prompt.named_parameters()}


def test_a_network_is_brought_to_the_average_of_its_states(network, tmp_path):
    weight, bias = network.fc.weight.detach(), network.fc.bias.detach()
    states = {
        "a": {"fc.weight": weight + 1},
        "b": xor_compress({"fc.bias": bias * 1.001}, network.state_dict()),
    }
    files = saved(tmp_path, **states, unread={"nothing": torch.ones(1)})
    model = copy.deepcopy(network)
    found = apply(model, {"pretrained": 0.25, "a": 0.25, "b": 0.5, "unread": 0.0}, files)
    assert found is model
    torch.testing.assert_close(model.fc.weight, weight + 0.25)
    torch.testing.assert_close(model.fc.bias, bias * 1.0005)
    for name, value in network.state_dict().items():
        assert name.startswith("fc.") or torch.equal(model.state_dict()[name], value)


def test_a_padding_prompt_goes_before_its_network_and_is_not_averaged(network, tmp_path):
    files = saved(
        tmp_path,
        vp={**prompt_of(32, 3), "fc.bias": network.fc.bias.detach() + 1},
        ft={"fc.bias": torch.ones(7)},
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    border = torch.zeros(3, 32, 32)
    border[:, 3:-3, :3], border[:, 3:-3, -3:], border[:, :3], border[:, -3:] = 3, 4, 1, 2
    found = apply(copy.deepcopy(network), {"vp": 1.0, "ft": 0.0}, files)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), network(images + border) + 1)
    for other in ("ft", "pretrained"):
        with pytest.raises(UserError, match="'vp'"):
            apply(copy.deepcopy(network), {other: 0.5, "vp": 0.5}, files)


@pytest.mark.parametrize("name", ["other", "fc.weigh"])
def test_a_tensor_that_the_network_lacks_is_named(network, tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}' that the network lacks"):
        apply(
            copy.deepcopy(network),
            {"a": 1.0},
            saved(tmp_path, a={name: torch.ones(1), "fc.bias": torch.ones(7)}),
        )


def test_a_networks_state_has_batch_norm_fused_and_is_in_evaluation_mode(
    network, tmp_path, monkeypatch
):
    bias = network.fc.bias.detach() + 1
    folder, files = model_folder(tmp_path / "model", network), saved(tmp_path, a={"fc.bias": bias})
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = network_in_state(folder, {"a": 1.0}, files, images)
    assert not found.training and not any(
        isinstance(module, nn.BatchNorm2d) for module in found.modules()
    )
    with torch.inference_mode():
        torch.testing.assert_close(found(images), network(images) + 1, rtol=1e-4, atol=1e-4)
    compiled = []
    monkeypatch.setitem(devices._policy, "compile", True)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    prompted = network_in_state(folder, {"vp": 1.0}, saved(tmp_path, vp=prompt_of(32, 2)), images)
    assert len(compiled) == 1 and compiled[0] is prompted
    assert not prompted.training and not any(
        isinstance(module, nn.BatchNorm2d) for module in prompted.modules()
    )

"""What a checkpoint stores of a fine-tuning, and what it and merges make of the pretrained network.

A state is the tensors by name that it has changed.
"""

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
    differing_tensors,
    xor_compress,
    xor_decompress,
)
from rib.models.padding_prompt import PaddingPrompt
from rib.models.state import network_in_state
from tiny.models.training import CPU, model_folder, resnet

START = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.3]), "steps": torch.tensor(7)}
TUNED = {"w": torch.tensor([3.0, 2.5])}
UNCHANGED = {}
COUNTER = "bn.num_batches_tracked"
# Numbers in the strips of `prompt_of`.
NUMBER_IN_STRIP = {"top": 1, "bottom": 2, "left": 3, "right": 4}


@pytest.fixture(scope="module")
def network():
    """A small network with BatchNorm and seven outputs."""
    return resnet(7)


def noise(*shape, seed=0):
    """A tensor of normally distributed numbers, always the same for a shape and a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_bits(seed):
    """A tensor float32 (50,) of random bits, which cannot be compressed."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (50,), generator=generator, dtype=torch.int64)
    return bits.int().view(torch.float32)


def save_checkpoints(folder, **tensors_by_method):
    """Write a checkpoint of each method to a folder; gives the files by method."""
    files = {}
    for method, tensors in tensors_by_method.items():
        files[method] = folder / f"{method}.safetensors"
        safetensors.torch.save_file(tensors, files[method])
    return files


def prompt_of(side, width):
    """A padding prompt for images of a side, as a checkpoint stores it; see NUMBER_IN_STRIP."""
    prompt_of_zeros = PaddingPrompt.of(side, width, CPU)
    return {
        f"padding_prompt.{name}": strip.detach() + NUMBER_IN_STRIP[name]
        for name, strip in prompt_of_zeros.named_parameters()
    }


def has_batch_norm(model):
    """Whether a network has a layer of BatchNorm."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_only_what_changed_is_stored():
    after = {**START, "w": torch.tensor([1.0, 2.5])}
    changed = differing_tensors(START, after)
    assert list(changed) == ["w"]
    assert torch.equal(changed["w"], torch.tensor([1.0, 2.5]))


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.floats(-1e3, 1e3, width=32))
def test_equal_states_average_to_themselves(coefficients, value):
    # given
    state = {"w": torch.full((2,), value)}
    total = sum(coefficients)
    weighted_states = [(coefficient / total, state) for coefficient in coefficients]
    # when
    averaged = average(START, weighted_states)
    # then
    assert torch.equal(averaged["w"], state["w"])


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.0, START["w"]), (0.5, torch.tensor([2.0, 2.25])), (1.0, TUNED["w"])]
)
def test_the_end_points_are_the_parts_themselves_and_the_middle_is_the_mean(alpha, expected):
    averaged = average(START, [(1 - alpha, UNCHANGED), (alpha, TUNED)])
    state_dict = {**START, **averaged}
    assert torch.equal(state_dict["w"], expected)
    assert torch.equal(state_dict["b"], START["b"])


def test_a_counter_that_differs_cannot_be_averaged():
    with_more_steps = {"steps": torch.tensor(8)}
    with pytest.raises(ValueError, match="'steps'"):
        average(START, [(0.5, UNCHANGED), (0.5, with_more_steps)])


def test_a_tensor_that_moved_little_is_stored_in_less_than_half_and_comes_back_bit_by_bit():
    # given
    start = {"w": noise(64, 100, seed=0), "steps": torch.tensor(7)}
    relative_change = 1e-4 * noise(64, 100, seed=1)
    moved = {"w": start["w"] * (1 + relative_change), "steps": torch.tensor(8)}
    moved["w"][0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    # when
    stored = xor_compress(moved, start)
    restored = xor_decompress(stored, start)
    # then
    assert set(stored) == {"w.xor", "steps"}
    assert stored["w.xor"].numel() < moved["w"].nbytes / 2
    assert restored.keys() == moved.keys()
    assert restored["steps"] == 8
    assert torch.equal(restored["w"].view(torch.int32), moved["w"].view(torch.int32))


def test_a_tensor_that_would_not_shrink_or_has_no_partner_is_stored_as_it_is():
    # given
    start_of_random_bits = {"w": random_bits(seed=0)}
    random_bits_and_a_factor = {"w": random_bits(seed=1), "x.lora_A": torch.ones(2)}
    zeros = {
        "w": torch.zeros(50),
        "half": torch.zeros(50).half(),
        "count": torch.zeros(50, dtype=torch.int64),
    }
    start_of_another_shape = {**zeros, "w": torch.zeros(49)}
    # when
    stored_random_bits = xor_compress(random_bits_and_a_factor, start_of_random_bits)
    stored_without_partner = xor_compress(zeros, start_of_another_shape)
    stored_with_partner = xor_compress(zeros, zeros)
    # then
    assert stored_random_bits.keys() == {"w", "x.lora_A"}
    assert stored_without_partner.keys() == {"w", "half", "count"}
    assert stored_with_partner.keys() == {"w.xor", "half", "count"}


def test_a_checkpoint_of_another_network_is_refused():
    stored = {"v.xor": torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="tensor 'v' that the network lacks"):
        xor_decompress(stored, START)


def test_coefficients_count_each_state_and_counters_keep_the_highest():
    # given
    start = {
        "w": torch.tensor([1.0, 2.0]),
        "half": torch.tensor([1.0]).half(),
        COUNTER: torch.tensor(3),
    }
    first = {"w": torch.tensor([2.0, 2.0]), COUNTER: torch.tensor(9)}
    second = {
        "w": torch.tensor([1.0, 7.0]),
        "half": torch.tensor([5.0]).half(),
        COUNTER: torch.tensor(5),
    }
    # when
    averaged = average(start, [(0.5, UNCHANGED), (0.2, first), (0.3, second)])
    # then
    expected_w = torch.tensor(
        [
            0.5 * 1.0 + 0.2 * 2.0 + 0.3 * 1.0,
            0.5 * 2.0 + 0.2 * 2.0 + 0.3 * 7.0,
        ]
    )
    expected_half = 0.5 * 1.0 + 0.2 * 1.0 + 0.3 * 5.0
    assert averaged.keys() == start.keys()
    torch.testing.assert_close(averaged["w"], expected_w)
    assert averaged["half"].dtype == torch.float16
    assert averaged["half"].item() == pytest.approx(expected_half, rel=1e-3)
    assert averaged[COUNTER] == 9


def test_statistics_of_batch_norm_are_not_extrapolated():
    """Task arithmetic of three parents at 0.4 weighs the pretrained model by -0.2.

    Without a limit, the variance would be 1.2 * 0.01 - 0.2 * 0.1, which is negative.
    """
    # given
    start = {"bn.running_var": torch.tensor([0.1]), "bn.weight": torch.tensor([0.1])}
    weighted_states = [(-0.2, UNCHANGED)]
    for variance in (0.01, 0.02, 0.03):
        parent = {"bn.running_var": torch.tensor([variance]), "bn.weight": torch.tensor([0.01])}
        weighted_states.append((0.4, parent))
    # when
    averaged = average(start, weighted_states)
    # then
    mean_variance = 0.02
    extrapolated_weight = 1.2 * 0.01 - 0.2 * 0.1
    assert averaged["bn.running_var"].item() == pytest.approx(mean_variance)
    assert averaged["bn.running_var"].dtype == torch.float32
    assert averaged["bn.weight"].item() == pytest.approx(extrapolated_weight)


def test_states_with_coefficient_0_are_no_part_of_an_average():
    # given
    broken = {"w": torch.tensor([float("nan"), 0.0]), "steps": torch.tensor(8)}
    with_equal_steps = {"steps": torch.tensor(7)}
    # when
    without_broken = average(START, [(1.0, UNCHANGED), (0.0, broken)])
    of_equal_steps = average(START, [(0.5, UNCHANGED), (0.5, with_equal_steps)])
    # then
    assert without_broken == {}
    assert of_equal_steps == {"steps": torch.tensor(7)}


@pytest.mark.parametrize(
    ("coefficients", "add_up_to_one"),
    [((0.5, 0.5 + 1e-8), False), ((0.5, 0.5 + 1e-10), True), ((0.6, 0.3), False)],
)
def test_coefficients_add_up_to_one_but_for_rounding(coefficients, add_up_to_one):
    weighted_states = [(coefficient, TUNED) for coefficient in coefficients]
    if add_up_to_one:
        assert average(START, weighted_states).keys() == {"w"}
    else:
        with pytest.raises(ValueError, match="add up to 1"):
            average(START, weighted_states)


def test_low_rank_updates_are_added_to_the_tensor_that_is_stored_or_the_pretrained_one():
    # given
    start = {"w": noise(4, 3, 1, 1, seed=0), "v": noise(2, 3, seed=1)}
    w_a = noise(2, 3, seed=2)
    w_b = noise(4, 2, seed=3)
    v_a = noise(1, 3, seed=4)
    v_b = noise(2, 1, seed=5)
    stored = {
        "w.lora_A": w_a,
        "w.lora_B": w_b,
        "v.lora_A": v_a,
        "v.lora_B": v_b,
        "v": torch.ones(2, 3),
        "padding_prompt.top": torch.ones(1),
        "u": torch.ones(1),
    }
    # when
    tensors = add_low_rank_updates(start, stored)
    # then
    update_of_w = torch.einsum("or,ri->oi", w_b, w_a)
    assert tensors.keys() == {"w", "v", "u"}
    torch.testing.assert_close(tensors["w"], start["w"] + update_of_w[:, :, None, None])
    torch.testing.assert_close(tensors["v"], torch.ones(2, 3) + v_b * v_a)
    assert torch.equal(tensors["u"], torch.ones(1))


def test_a_network_is_brought_to_the_average_of_its_states(network, tmp_path):
    # given
    weight = network.fc.weight.detach()
    bias = network.fc.bias.detach()
    files = save_checkpoints(
        tmp_path,
        a={"fc.weight": weight + 1},
        b=xor_compress({"fc.bias": bias * 1.001}, network.state_dict()),
        unread={"nothing": torch.ones(1)},
    )
    coefficients = {"pretrained": 0.25, "a": 0.25, "b": 0.5, "unread": 0.0}
    model = copy.deepcopy(network)
    # when
    averaged_model = apply(model, coefficients, files)
    # then
    assert averaged_model is model
    torch.testing.assert_close(model.fc.weight, weight + 0.25)
    torch.testing.assert_close(model.fc.bias, bias * 1.0005)
    averaged_tensors = model.state_dict()
    other_names = network.state_dict().keys() - {"fc.weight", "fc.bias"}
    assert other_names
    for name in other_names:
        assert torch.equal(averaged_tensors[name], network.state_dict()[name]), name


def test_a_padding_prompt_goes_before_its_network_and_is_not_averaged(network, tmp_path):
    # given
    raised_bias = network.fc.bias.detach() + 1
    files = save_checkpoints(
        tmp_path,
        vp={**prompt_of(side=32, width=3), "fc.bias": raised_bias},
        ft={"fc.bias": torch.ones(7)},
    )
    images = noise(2, 3, 32, 32)
    border = torch.zeros(3, 32, 32)
    border[:, :, :3] = NUMBER_IN_STRIP["left"]
    border[:, :, -3:] = NUMBER_IN_STRIP["right"]
    border[:, :3] = NUMBER_IN_STRIP["top"]
    border[:, -3:] = NUMBER_IN_STRIP["bottom"]
    # when
    prompted = apply(copy.deepcopy(network), {"vp": 1.0, "ft": 0.0}, files)
    # then
    with torch.inference_mode():
        torch.testing.assert_close(prompted(images), network(images + border) + 1)
    for other_method in ("ft", "pretrained"):
        with pytest.raises(UserError, match="'vp'"):
            apply(copy.deepcopy(network), {other_method: 0.5, "vp": 0.5}, files)


def test_a_tensor_that_the_network_lacks_is_named(network, tmp_path):
    checkpoint = {"fc.weigh": torch.ones(1), "fc.bias": torch.ones(7)}
    files = save_checkpoints(tmp_path, a=checkpoint)
    with pytest.raises(ValueError, match="'fc.weigh' that the network lacks"):
        apply(copy.deepcopy(network), {"a": 1.0}, files)


def test_a_network_with_a_padding_prompt_is_compiled_as_one_with_batch_norm_fused(
    network, tmp_path, monkeypatch
):
    # given
    compiled_modules = []

    def note_compiled(module):
        compiled_modules.append(module)

    monkeypatch.setitem(devices._policy, "compile", True)
    monkeypatch.setattr(nn.Module, "compile", note_compiled)
    folder = model_folder(tmp_path / "model", network)
    files = save_checkpoints(tmp_path, vp=prompt_of(side=32, width=2))
    # when
    prompted = network_in_state(folder, {"vp": 1.0}, files, noise(4, 3, 32, 32))
    # then
    (compiled_module,) = compiled_modules
    assert compiled_module is prompted
    assert not prompted.training
    assert has_batch_norm(network)
    assert not has_batch_norm(prompted)

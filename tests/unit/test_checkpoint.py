import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rib.models.checkpoint import average, changed_tensors, packed, unpacked

START = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.3]), "steps": torch.tensor(7)}
TUNED = {"w": torch.tensor([3.0, 2.5])}


def test_only_what_changed_is_stored():
    after = {**START, "w": torch.tensor([1.0, 2.5])}
    assert list(changed_tensors(START, after)) == ["w"]


def test_the_end_points_are_the_parts_themselves():
    for alpha, expected in ((0.0, START["w"]), (1.0, TUNED["w"])):
        merged = {**START, **average(START, [(1 - alpha, {}), (alpha, TUNED)])}
        assert torch.equal(merged["w"], expected) and torch.equal(merged["b"], START["b"])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.floats(-1e3, 1e3, width=32))
def test_equal_states_average_to_themselves(weights, value):
    parts = [(weight / sum(weights), {"w": torch.full((2,), value)}) for weight in weights]
    assert torch.equal(average(START, parts)["w"], torch.full((2,), value))


def test_the_middle_is_the_mean():
    assert torch.equal(average(START, [(0.5, {}), (0.5, TUNED)])["w"], torch.tensor([2.0, 2.25]))


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        average(START, [(0.5, TUNED)])
    with pytest.raises(ValueError, match="'steps' differs"):
        average(START, [(0.5, {}), (0.5, {"steps": torch.tensor(8)})])


def test_a_tensor_that_moved_little_is_stored_in_less_than_half_and_comes_back_bit_by_bit():
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(64, 100, generator=generator), "steps": torch.tensor(7)}
    moved = {"w": start["w"] * (1 + 1e-4 * torch.randn(64, 100, generator=generator)), "steps": torch.tensor(8)}
    moved["w"][0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    stored = packed(moved, start)
    assert set(stored) == {"w.xor", "steps"} and stored["w.xor"].numel() < moved["w"].nbytes / 2
    back = unpacked(stored, start)
    assert back.keys() == moved.keys() and back["steps"] == 8
    assert torch.equal(back["w"].view(torch.int32), moved["w"].view(torch.int32))


def test_a_tensor_that_would_not_shrink_or_has_no_partner_is_stored_as_it_is():
    generator = torch.Generator().manual_seed(0)
    bits = [torch.randint(-(2**31), 2**31, (50,), generator=generator, dtype=torch.int64).int() for _ in range(2)]
    start, new = ({"w": part.view(torch.float32)} for part in bits)
    new["x.lora_A"] = torch.ones(2)
    assert packed(new, start).keys() == new.keys()


def test_a_checkpoint_of_another_network_is_refused():
    with pytest.raises(ValueError, match="tensor 'v' that the network lacks"):
        unpacked({"v.xor": torch.zeros(3, dtype=torch.uint8)}, START)

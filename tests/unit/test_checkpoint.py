import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rib.models.checkpoint import average, changed_tensors

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

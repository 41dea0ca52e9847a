import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rib.config.label_space import LabelSpace
from rib.models.class_logits import class_logits, class_members

CPU = torch.device("cpu")


@st.composite
def spaces(draw):
    """Label space over 20 logits with one to four indices per class."""
    order = draw(st.permutations(range(20)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    ends = np.cumsum(sizes)
    rows = tuple(
        tuple(sorted(order[end - size : end])) for size, end in zip(sizes, ends, strict=True)
    )
    return LabelSpace(names := tuple(map(str, range(len(rows)))), rows, names)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_each_class_has_the_maximum_of_its_indices(space, seed):
    logits = np.random.default_rng(seed).integers(-3, 4, (6, 20)).astype(np.float32)
    found = class_logits(torch.from_numpy(logits), class_members(space, CPU)).numpy()
    expected = np.stack([logits[:, list(row)].max(axis=1) for row in space.indices], axis=1)
    assert (found == expected).all()


@given(spaces(), st.integers(0, 2**32 - 1))
def test_the_gradient_goes_to_the_lowest_of_equal_indices(space, seed):
    values = np.random.default_rng(seed).integers(0, 2, (3, 20)).astype(np.float32)
    logits = torch.from_numpy(values).requires_grad_()
    class_logits(logits, class_members(space, CPU)).sum().backward()
    expected = np.zeros_like(values)
    for row in space.indices:
        best = np.array(row)[values[:, list(row)].argmax(axis=1)]  # NumPy's argmax takes the first
        expected[np.arange(3), best] += 1
    assert (logits.grad.numpy() == expected).all()


def test_the_loss_is_convex_in_the_logits_with_one_index_per_class_and_not_with_several():
    """What catalog/methods.yaml says of linear probing, whose logits are linear in its weights."""
    rng, label = np.random.default_rng(0), torch.tensor([0])

    def excess(rows, first, second):
        """Loss halfway between two logits less their mean loss; at most 0 for a convex loss."""
        members = class_members(
            LabelSpace(names := tuple(map(str, range(len(rows)))), rows, names), CPU
        )
        ends = torch.tensor(np.array([first, second, np.add(first, second) / 2])[:, None])
        one, other, middle = (
            torch.nn.functional.cross_entropy(class_logits(end, members), label) for end in ends
        )
        return float(middle - (one + other) / 2)

    assert all(excess(((0,), (1,), (2,)), *rng.normal(size=(2, 3))) <= 1e-12 for _ in range(200))
    # Either index of the right class has logit 2, halfway both have 1: log(1 + e^-1) - log(1 +
    # e^-2).
    assert excess(((0, 1), (2,)), [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]) == pytest.approx(
        0.313262 - 0.126928, abs=1e-5
    )
    # As long as the same indices are highest, the loss is convex.
    high = rng.uniform(0, 1, (200, 2, 3)) + np.array([2, 0, 0])
    assert all(excess(((0, 1), (2,)), *pair) <= 1e-12 for pair in high)


def test_other_shapes_are_refused():
    members = class_members(LabelSpace(("a",), ((0,),), ("a",)), CPU)
    for logits, table in (
        (torch.zeros(20), members),
        (torch.zeros(2, 20), members[0]),
        (torch.zeros(1, 2, 20), members),
    ):
        with pytest.raises(ValueError, match="expected"):
            class_logits(logits, table)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_the_maximum_rule_is_right_where_the_best_of_all_kept_indices_is_an_allowed_one(
    space, seed
):
    """ObjectNet's two ways of scoring.

    A maximum per class, or a hit of any allowed index among those kept.
    """
    logits = np.random.default_rng(seed).permutation(6 * 20).reshape(6, 20).astype(np.float32)
    predicted = (
        class_logits(torch.from_numpy(logits), class_members(space, CPU)).argmax(dim=1).numpy()
    )
    kept = np.array(sorted(index for row in space.indices for index in row))
    best = kept[logits[:, kept].argmax(axis=1)]
    for label, row in enumerate(space.indices):
        assert ((predicted == label) == np.isin(best, row)).all()

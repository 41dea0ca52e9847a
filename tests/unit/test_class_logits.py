import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rib.catalog.label_space import LabelSpace
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

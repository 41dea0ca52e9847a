"""What the page says of a dataset's images."""

import pytest

from rib.analyses.data_and_models.tables import left_out


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((20, 20, 0), ""),
        ((20, 0, 0), ""),  # not evaluated at all
        ((20, 15, 2), "2 that can't be decoded; 5: the budget"),
    ],
)
def test_images_that_are_not_evaluated_are_counted_with_the_reason(numbers, said):
    assert left_out(*numbers, "the budget") == said

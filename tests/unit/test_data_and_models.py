"""What the page says of a dataset's images and of a model's head."""

import pytest

from rib.statistics.data_and_models import head_of, left_out


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((20, 20, 0), ""),
        ((20, 0, 0), ""),  # not evaluated at all
        ((20, 15, 0), "5: the budget"),
        ((20, 20, 2), "2 that can't be decoded"),
        ((20, 15, 2), "2 that can't be decoded; 5: the budget"),
    ],
)
def test_images_that_are_not_evaluated_are_counted_with_the_reason(numbers, said):
    assert left_out(*numbers, "the budget") == said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"from": "published"}, "published"),
        ({"from": "zero_shot"}, "zero-shot"),
        ({"from": "pretrained"}, "trained with the network"),
        ({"from": "fitted", "images": 200, "penalty": 1.0}, "fitted on 200 images"),
    ],
)
def test_the_origin_of_a_head_is_in_words(facts, said):
    assert said in head_of(facts)

"""How long parts of large targets are trained: `subset_ceiling` of a family."""

import itertools

import pytest

from rib.base.errors import UserError
from rib.base.params import replaced
from rib.catalog.catalog import Catalog
from rib.schema.run import ALL
from rib.statistics.conditions import conditions_of
from tiny.projects.grids import grid
from tiny.projects.project import ROOT

STEPS_OF_SKETCH = 10 * 796  # 10 epochs of 50,889 images, 64 in a step


def photos(**choices):
    """A grid of the family imagenet, whose ceiling is ImageNet-Sketch, of parts of two targets."""
    targets = ["imagenet_c", "imagenet_sketch", "imagenet_r"]
    return grid(
        **{"family": "imagenet", "targets": targets, "train_subset": [ALL, 1000], **choices}
    )


def catalog_with_ceiling(ceiling, **facts):
    """The project's catalogue, in which another dataset is imagenet's ceiling.

    `facts` are of ImageNet-Sketch.
    """
    catalog = Catalog([ROOT / "workflow/catalog"])
    catalog.families["imagenet"] = replaced(catalog.families["imagenet"], subset_ceiling=ceiling)
    sketch = catalog.datasets["imagenet_sketch"]
    catalog.datasets["imagenet_sketch"] = replaced(sketch, **facts)
    return catalog


def length(training):
    """Epochs, steps and whether a part has as many of these as the whole."""
    return training["epochs"], training["steps"], training["subset_length"]


def test_a_part_of_a_larger_target_is_trained_for_the_steps_of_the_ceiling():
    of_c = photos().training_of("ft", "imagenet_c", "1000")
    assert length(of_c) == (None, STEPS_OF_SKETCH, "steps")
    others = {"epochs", "steps"}
    whole = photos().training("ft")
    assert {key: of_c[key] for key in of_c if key not in others} == {
        key: whole[key] for key in whole if key not in others
    }


@pytest.mark.parametrize(
    ("target", "size", "choices"),
    [
        ("imagenet_c", ALL, {}),
        ("imagenet_sketch", "1000", {}),
        ("imagenet_r", "1000", {}),
        ("imagenet_c", "1000", {"budget": {"max_images_per_dataset": {"imagenet_c": 0.01}}}),
        ("imagenet_c", "1000", {"training": {"steps": 9000}}),
        ("imagenet_c", "1000", {"training": {"subset_length": "epochs"}}),
    ],
    ids=str,
)
def test_settings_of_a_training_below_the_ceiling_stay(target, size, choices):
    """So that nothing of what has been trained runs again."""
    chosen = photos(**choices)
    assert chosen.training_of("ft", target, size) == chosen.training("ft")


def test_a_part_of_more_images_than_the_ceiling_is_trained_for_the_epochs_of_the_whole():
    chosen = photos(train_subset=[0.5, 0.01])
    assert length(chosen.training_of("ft", "imagenet_c", "0.5")) == (10, None, "epochs")
    assert length(chosen.training_of("ft", "imagenet_c", "0.01")) == (
        None,
        STEPS_OF_SKETCH,
        "steps",
    )
    assert any("size 0.5 of IN-C" in text for text in conditions_of(chosen))


def test_the_ceiling_is_that_of_the_images_that_are_trained_on():
    """Under held_out 0.6 of 50,889 images, 478 steps; and with other batches and epochs."""
    held_out = photos(protocol="held_out").training_of("ft", "imagenet_c", "1000")
    assert held_out["steps"] == 10 * 478
    other = photos(training={"batch_size": 128, "epochs": 3})
    assert other.training_of("ft", "imagenet_c", "1000")["steps"] == 3 * 398


def test_conditions_follow_the_ceiling_where_it_shortens_a_training():
    assert any("size 1000 of IN-C" in text for text in conditions_of(photos()))
    without_ceiling = catalog_with_ceiling(None)
    for choices in ({"train_subset": [ALL]}, {"targets": ["imagenet_r"]}):
        unchanged = {"family": "imagenet", **choices}
        chosen, uncapped = grid(**unchanged), grid(without_ceiling, **unchanged)
        for target, size in itertools.product(chosen.targets, chosen.sizes):
            length = chosen.training_of("ft", target, size)
            assert length == uncapped.training_of("ft", target, size)
        assert not [text for text in conditions_of(grid(**unchanged)) if "trained for" in text]


@pytest.mark.parametrize(
    ("ceiling", "facts", "message"),
    [
        ("noto", {}, "'noto'"),
        ("imagenet_sketch", {"images": None}, "'imagenet_sketch'"),
    ],
)
def test_a_ceiling_without_a_known_number_of_images_is_refused(ceiling, facts, message):
    catalog = catalog_with_ceiling(ceiling, **facts)
    with pytest.raises(UserError, match=rf"families/imagenet\.yaml, subset_ceiling: .*{message}"):
        grid(catalog, family="imagenet")

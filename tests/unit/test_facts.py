"""The catalogue against public records.

Which file has the weights, and which classes the released code has.
"""

import pytest
import timm.models._hub

open_clip = pytest.importorskip("open_clip")
# Files of repositories on the hub that don't have the name that the library gives them.
HUB_FILES = {
    "ViT-L-14.laion2b_s32b_b82k": "open_clip_pytorch_model.safetensors",
}
# The released code, lib/dataset/objectnet_dataset.py:21-28, objclasses.
RELEASED_INDICES = """
    409 414 418 419 434 440 455 457 462 463 470 473 487 499 504 507 508 531 533 539 543 545 549 550
    560 567 578 587 588 589 610 618 619 620 623 626 629 630 632 644 647 651 658 659 664 671 673 677
    679 694 695 696 700 703 720 721 725 728 729 731 732 737 740 742 752 761 769 770 772 773 774 783
    790 792 797 804 806 809 811 813 828 834 837 841 846 849 850 851 859 868 879 882 883 893 898 902
    907 909 923 930 950 951 954 968 999
"""
# Folders that it scores under another object's index.
RELEASED_MISTAKES = {
    "weight_scale": 732,
    "chair": 508,
    "trash_bin": 531,
    "swimming_trunks": 909,
    "skirt": 588,
    "jeans": 850,
    "binder_closed": 463,
    "iron_for_clothes": 882,
}


def test_weights_are_fetched_under_the_names_that_the_hub_has(catalog):
    usual = {
        "timm": timm.models._hub.HF_SAFE_WEIGHTS_NAME,
        "open_clip": open_clip.constants.HF_SAFE_WEIGHTS_NAME,
    }
    on_hub = {
        name: model
        for name, model in catalog.models.items()
        if model.source and model.source.kind == "hub"
    }
    assert set(HUB_FILES) < set(on_hub)
    for name, model in on_hub.items():
        assert model.archives[0]["path"] == HUB_FILES.get(name, usual[model.library]), name


def test_the_released_map_of_objectnet_is_the_released_list(catalog):
    entry, whole = (
        catalog.datasets["objectnet_released"],
        catalog.label_space(catalog.datasets["objectnet"]),
    )
    space = catalog.label_space(entry)
    index_of = {key: index for key, (index,) in zip(space.keys, space.indices, strict=True)}
    released = [int(index) for index in RELEASED_INDICES.split()]
    assert len(released) == 105 and sorted(index_of.values()) == released
    assert {
        folder: index_of[key] for folder, key in entry.settings["also"].items()
    } == RELEASED_MISTAKES
    right = dict(zip(whole.keys, whole.indices, strict=True))
    assert set(right) == set(index_of) | set(RELEASED_MISTAKES)
    assert all(index in right[key] for key, index in index_of.items())
    assert not any(index in right[folder] for folder, index in RELEASED_MISTAKES.items())

"""Nested class-balanced subsets.

Their order depends only on a seed, labels, source ids and image ids.
"""

import math
from hashlib import sha256

import numpy as np

from rib.base.errors import UserError
from rib.config.run import ALL, images_of
from rib.data.prepared import PreparedDataset

GOLDEN_SECTION = 0.618
SEED_OF_BUDGETS = 0  # whatever the seed of a run, so that all runs have the same images


def subset(
    dataset: PreparedDataset, size: str, seed: int, setting: str = "train_subset"
) -> PreparedDataset:
    """The first images in the class-balanced order of a seed.

    Subsets with one seed are nested; with another seed other images are drawn.

    Args:
        size: `all`, a number of images, or a fraction of them (with a decimal point: 0.5).
        seed: of a training, or of a model's pretraining.
        setting: name of the setting, for messages.

    Raises:
        UserError: the dataset has fewer images, or the fraction is less than one image.
    """
    if size == ALL:
        return dataset
    n = len(dataset.labels)
    number_of_images = images_of(size, n)
    if not 1 <= number_of_images <= n:
        raise UserError(
            f"{setting} {size}: {dataset.name} has {n} images to train on; set 1 to {n}, or a "
            "fraction below 1."
        )
    return first_images(dataset, number_of_images, seed)


def first_images(
    dataset: PreparedDataset, limit: int, seed: int = SEED_OF_BUDGETS
) -> PreparedDataset:
    """At most `limit` images of a dataset, the first in the balanced order of a seed.

    Their rows stay in the order of the dataset.
    """
    if len(dataset.labels) <= limit:
        return dataset
    first_rows = balanced_order(dataset, seed)[:limit]
    return dataset.take(np.sort(first_rows))


def held_back(dataset: PreparedDataset, share: float) -> np.ndarray:
    """Which images are held back from training: those of a share of each class's source images.

    At least one source image of a class is held back, except of a class that has only one. A source
    image of several classes is of the first. The choice is pseudo-random and always the same.

    Returns:
        (n,) bool, one for each image of the dataset.
    """
    source_of_image, sources = dataset.sources
    # The lowest label of the images of each source.
    class_of_source = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(class_of_source, source_of_image, dataset.labels)
    sources_of_class = np.bincount(class_of_source)
    class_size = sources_of_class[class_of_source]  # of each source's class
    number_held_back = np.maximum(1, np.floor(share * class_size))
    number_held_back = np.where(class_size > 1, number_held_back, 0)
    # Of each class, so many sources with the lowest hashes are held back.
    hashes = np.array([hashed("held back", source) for source in sources])
    rank_in_class = rank_within(class_of_source, hashes)
    is_source_held_back = rank_in_class < number_held_back
    is_image_held_back: np.ndarray = is_source_held_back[source_of_image]
    return is_image_held_back


def balanced_order(dataset: PreparedDataset, seed: int = SEED_OF_BUDGETS) -> np.ndarray:
    """Pseudo-random order of images that takes one image of every class before a second of any.

    Within a class, one image of each source comes first, then a second of each (ImageNet-C has 75
    of each source). Hashes of seed and source ids order the sources, so datasets that are made from
    the same sources have them in the same order.

    Returns:
        The permutation, (n,) int64; it depends only on the seed, labels, source ids and image ids.
    """
    purpose = "order"
    if seed != SEED_OF_BUDGETS:
        purpose = f"order of seed {seed}"
    source_hashes = _source_hashes(dataset, purpose)
    rank_in_source = _rank_in_source(dataset, purpose)
    # The last key counts first: images are sorted by their rank in the source, then by its hash.
    rank_in_class = rank_within(dataset.labels, source_hashes, rank_in_source)
    return np.lexsort((source_hashes, rank_in_class))


def balanced_over_slices(dataset: PreparedDataset, slices: np.ndarray) -> np.ndarray:
    """Order in which a budget takes images: that of `balanced_order`, with slices in turn.

    Each source of a class begins with the slice after that of the source before. The further images
    of a source are a stride of slices from the last one each, and so are the first ones of classes.
    So after any number of images, slices have almost equally many of each class, where each source
    has an image of each slice, as in ImageNet-C; classes and sources come as in `balanced_order`.

    Where sources lack slices, those of a slice that has been taken less in their class come first.

    Args:
        slices: (n,) number of each image's slice, from 0; with one slice it is `balanced_order`.

    Returns:
        The permutation, (n,) int64.
    """
    purpose = "order"
    source_hashes = _source_hashes(dataset, purpose)
    number_of_slices = int(slices.max()) + 1
    stride = _stride(number_of_slices)
    place_of_class, place_in_class = _places(dataset, source_hashes)
    first_slices = place_in_class + stride * place_of_class
    # The slice of turn t of a source is t strides after its first one, counted round.
    turn_of_next_slice = pow(stride, -1, number_of_slices)
    turns = (slices - first_slices) * turn_of_next_slice % number_of_slices
    rank_in_source = _rank_in_source(dataset, purpose, turns)
    # Images of a slice and class that have the same rank in their sources.
    slice_of_class = dataset.labels * number_of_slices + slices
    groups = rank_in_source * (int(slice_of_class.max()) + 1) + slice_of_class
    rank_in_slice = rank_within(groups, source_hashes)
    # The last key counts first.
    rank_in_class = rank_within(dataset.labels, source_hashes, rank_in_slice, rank_in_source)
    return np.lexsort((source_hashes, rank_in_class))


def _source_hashes(dataset: PreparedDataset, purpose: str) -> np.ndarray:
    """Hash of each image's source: (n,) float, see `hashed`."""
    source_of_image, sources = dataset.sources
    hash_of_source = np.array([hashed(purpose, source) for source in sources])
    hash_of_image: np.ndarray = hash_of_source[source_of_image]
    return hash_of_image


def _rank_in_source(
    dataset: PreparedDataset, purpose: str, turns: np.ndarray | None = None
) -> np.ndarray:
    """Rank of each image among those of its source, from 0: (n,) int64.

    Args:
        turns: (n,) the rank is by these, and by hashes of image ids where they are equal; None if
            it is by hashes alone.
    """
    source_of_image, sources = dataset.sources
    has_one_image_per_source = len(sources) == len(source_of_image)
    if has_one_image_per_source:
        return np.zeros(len(source_of_image), np.int64)
    image_ids = dataset.index["image_id"].to_pylist()
    image_hashes = np.array([hashed(purpose, image_id) for image_id in image_ids])
    if turns is None:
        return rank_within(source_of_image, image_hashes)
    return rank_within(source_of_image, image_hashes, turns)


def _places(dataset: PreparedDataset, source_hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each image's class among all classes, and of its source in the class: (n,) int each.

    Places count from 0. Sources are in the order of their hashes, and classes in that of their
    first sources.
    """
    order = np.lexsort((source_hashes, dataset.labels))  # one class after the other
    labels = dataset.labels[order]
    hashes = source_hashes[order]
    begins_source = np.ones(len(order), bool)
    begins_source[1:] = (labels[1:] != labels[:-1]) | (hashes[1:] != hashes[:-1])
    source_number = np.cumsum(begins_source) - 1
    _, start_of_class, class_number = np.unique(labels, return_index=True, return_inverse=True)
    first_source_of_class = source_number[start_of_class]
    place_among_classes = np.argsort(np.argsort(hashes[start_of_class]))
    place_of_class = np.empty(len(order), np.int64)
    place_of_class[order] = place_among_classes[class_number]
    place_in_class = np.empty(len(order), np.int64)
    place_in_class[order] = source_number - first_source_of_class[class_number]
    return place_of_class, place_in_class


def _stride(number_of_slices: int) -> int:
    """By how many slices a source's images, one after the other, are apart.

    It is about the golden section of all slices: sources in a row, which begin with slices in a
    row, have then taken all slices almost equally often, however many images of each are taken. It
    has no common factor with the number of slices, so that each slice has its turn.
    """
    stride = round(GOLDEN_SECTION * number_of_slices)
    while math.gcd(stride, number_of_slices) > 1:
        stride += 1
    return stride


def rank_within(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Rank of each element among those of its group, from 0 for the smallest key: (n,) int64.

    The groups 5, 5, 7 with the keys 0.8, 0.2, 0.4 give the ranks 1, 0, 0.

    Args:
        groups: (n,) the group of each element.
        keys: (n,) each; the last one counts first, and the others where it is equal.
    """
    order = np.lexsort((*keys, groups))  # one group after the other, each by its keys
    ordered_groups = groups[order]
    start_of_group = np.searchsorted(ordered_groups, ordered_groups)
    rank_in_order = np.arange(len(groups)) - start_of_group
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = rank_in_order
    return ranks


def hashed(purpose: str, source_id: str) -> float:
    """A pseudo-random number in 0..1 for an id, the same on every machine.

    Args:
        purpose: what it is for, such as `order`; another purpose gives another number.
        source_id: id of a source image, or of an image.
    """
    digest = sha256(f"{purpose}\0{source_id}".encode()).digest()
    first_eight_bytes = digest[:8]
    return int.from_bytes(first_eight_bytes, "big") / 2**64

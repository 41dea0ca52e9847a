"""Nested class-balanced subsets, whose order depends only on a seed, labels and ids."""

import bisect
import math
from collections.abc import Iterable
from hashlib import sha256

import numpy as np

from rib.base.errors import UserError
from rib.data.dataset import PreparedDataset
from rib.schema.run import ALL, images_of

GOLDEN_SECTION = 0.618
SEED_OF_BUDGETS = 0  # all runs have the same images, whatever their seed


def subset(
    dataset: PreparedDataset, size: str, seed: int, setting: str = "train_subset"
) -> PreparedDataset:
    """The first images in the class-balanced order of a seed.

    Subsets with one seed are nested; another seed draws other images.

    Args:
        size: `all`, a number of images, or a fraction with a decimal point (`0.5`).
        seed: of a training or a pretraining.
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
    """At most `limit` images, the first in the balanced order of a seed, in the dataset's order."""
    if len(dataset.labels) <= limit:
        return dataset
    first_rows = balanced_order(dataset, seed, limit)
    return dataset.take(np.sort(first_rows))


def held_back(dataset: PreparedDataset, share: float) -> np.ndarray:
    """Mask of images held back to choose a setting, (n,) bool: a share of each class's sources.

    At least one source image per class is held back, except from a class with only one. A source
    image of several classes belongs to the first. The choice is pseudo-random and always the same.
    """
    source_of_image, sources = dataset.sources
    # lowest label among each source's images
    class_of_source = np.full(len(sources), np.iinfo(np.int64).max)
    np.minimum.at(class_of_source, source_of_image, dataset.labels)
    sources_of_class = np.bincount(class_of_source)
    class_size = sources_of_class[class_of_source]  # size of each source's class
    number_held_back = np.maximum(1, np.floor(share * class_size))
    number_held_back = np.where(class_size > 1, number_held_back, 0)
    # Hold back the sources with the lowest hashes.
    rank_in_class = rank_within(class_of_source, hashed("held back", sources))
    is_source_held_back = rank_in_class < number_held_back
    is_image_held_back: np.ndarray = is_source_held_back[source_of_image]
    return is_image_held_back


def balanced_order(
    dataset: PreparedDataset, seed: int = SEED_OF_BUDGETS, first: int | None = None
) -> np.ndarray:
    """Pseudo-random order that takes one image of every class before a second of any.

    Within a class, one image of each source comes first, then a second of each (ImageNet-C has 75
    per source). Hashes of seed and source ids order the sources: datasets made from the same
    sources have them in the same order.

    Args:
        first: number of images to return; None for all.

    Returns:
        Rows in the dataset, (first,) int64.
    """
    purpose = "order"
    if seed != SEED_OF_BUDGETS:
        purpose = f"order of seed {seed}"
    if first is not None:
        rows = _rows_of_first_sources(dataset, purpose, first)
        order_of_rows = balanced_order(dataset.take(rows), seed)
        first_rows: np.ndarray = rows[order_of_rows[:first]]
        return first_rows
    source_of_image, sources = dataset.sources
    source_hashes = hashed(purpose, sources)[source_of_image]
    all_turns_equal = np.zeros(len(dataset.labels), np.int64)
    rank_in_source = _rank_in_source(dataset, purpose, all_turns_equal)
    # The last key is the primary one: rank in the source, then the source's hash.
    rank_in_class = rank_within(dataset.labels, source_hashes, rank_in_source)
    return np.lexsort((source_hashes, rank_in_class))


def _rows_of_first_sources(dataset: PreparedDataset, purpose: str, first: int) -> np.ndarray:
    """Sorted rows of all images of the sources that the first images may come from.

    Only their images need hashes (of `purpose` and id).
    """
    source_of_image, sources = dataset.sources
    class_of_source = np.empty(len(sources), np.int64)
    class_of_source[source_of_image] = dataset.labels  # one of them, if a source has several
    is_of_other_class = dataset.labels != class_of_source[source_of_image]
    has_several_classes = np.zeros(len(sources), bool)
    has_several_classes[source_of_image[is_of_other_class]] = True
    # The last key counts first: sources of several classes come after the others.
    place_in_class = rank_within(class_of_source, hashed(purpose, sources), has_several_classes)
    # A class that gives k images takes at most one from each of its first k sources, or it has
    # fewer sources. A source of several classes may give its first image to another class, so all
    # of these are returned and not counted.
    is_first = place_in_class < _most_of_a_class(dataset.labels, first)
    is_returned = is_first | has_several_classes
    return np.flatnonzero(is_returned[source_of_image])


def _most_of_a_class(labels: np.ndarray, first: int) -> int:
    """Most images that a class gives: of classes with 5 and 2, the first 6 are 4 and 2, so 4."""
    class_sizes = np.bincount(labels)

    def number_taken(most_of_a_class: int) -> int:
        return int(np.minimum(class_sizes, most_of_a_class).sum())

    return bisect.bisect_left(range(class_sizes.max()), first, key=number_taken)


def balanced_over_slices(
    dataset: PreparedDataset, slices: np.ndarray, first: int | None = None
) -> np.ndarray:
    """Order in which a budget takes images: `balanced_order` with slices in turn.

    Each source of a class begins with the slice after the previous source's slice. Further images
    of a source follow at a stride of slices, and so do the first slices of classes. If each source
    has an image of each slice, as in ImageNet-C, any number of images has almost equally many of
    each slice in each class.

    If sources lack slices, slices taken less often in their class come first.

    Args:
        slices: (n,) number of each image's slice, from 0; a single slice gives `balanced_order`.
        first: number of images to return; None for all.

    Returns:
        Rows in the dataset, (first,) int64.
    """
    purpose = "order"
    if first is None:
        first = len(slices)
    source_of_image, sources = dataset.sources
    hash_of_source = hashed(purpose, sources)
    number_of_slices = int(slices.max()) + 1
    stride = _stride(number_of_slices)
    first_slices = _first_slices(dataset, hash_of_source, stride)
    # A source's slice in turn t is t strides after its first slice, modulo their number.
    turn_of_next_slice = pow(stride, -1, number_of_slices)
    turns = (slices - first_slices) * turn_of_next_slice % number_of_slices
    rank_in_source = _rank_in_source(dataset, purpose, turns)
    # Only these are sorted, since there may be millions of images.
    rows = _rows_of_first_ranks(dataset.labels, rank_in_source, first)
    labels, slices, rank_in_source = dataset.labels[rows], slices[rows], rank_in_source[rows]
    source_hashes = hash_of_source[source_of_image[rows]]
    # Images of a slice and class with the same rank in their sources.
    slice_of_class = labels * number_of_slices + slices
    groups = rank_in_source * (int(slice_of_class.max()) + 1) + slice_of_class
    rank_in_slice = rank_within(groups, source_hashes)
    # The last key counts first.
    rank_in_class = rank_within(labels, source_hashes, rank_in_slice, rank_in_source)
    first_rows: np.ndarray = rows[np.lexsort((source_hashes, rank_in_class))[:first]]
    return first_rows


def _rows_of_first_ranks(labels: np.ndarray, ranks: np.ndarray, first: int) -> np.ndarray:
    """Sorted rows of images that may be among the first, to sort no others.

    A class gives images in order of `ranks`, which count within each source.
    """
    most_of_a_class = _most_of_a_class(labels, first)
    ranks = np.minimum(ranks, most_of_a_class)  # keeps ranks few even if one source has all images
    number_of_ranks = int(ranks.max()) + 1
    number_of_classes = int(labels.max()) + 1
    sizes = np.bincount(
        labels * number_of_ranks + ranks, minlength=number_of_classes * number_of_ranks
    )
    images_up_to_rank = sizes.reshape(number_of_classes, number_of_ranks).cumsum(axis=1)
    class_sizes = images_up_to_rank[:, -1:]
    is_enough = images_up_to_rank >= np.minimum(class_sizes, most_of_a_class)
    last_rank_of_class = is_enough.argmax(axis=1)
    return np.flatnonzero(ranks <= last_rank_of_class[labels])


def _rank_in_source(dataset: PreparedDataset, purpose: str, turns: np.ndarray) -> np.ndarray:
    """Rank of each image within its source, from 0, by turn, then by hash of the image id.

    A turn is the place of the image's slice in its source's order of slices.
    """
    source_of_image, _ = dataset.sources
    turns_of_all_sources = source_of_image.astype(np.int64) * (int(turns.max()) + 1) + turns
    # With indices, np.unique sorts stably, which is fast where images are sorted within each slice.
    _, _, numbers, counts = np.unique(
        turns_of_all_sources, return_index=True, return_inverse=True, return_counts=True
    )
    shares_turn = counts[numbers] > 1
    image_ids = dataset.index["image_id"].filter(shares_turn).to_pylist()
    image_hashes = np.zeros(len(turns))
    image_hashes[shares_turn] = hashed(purpose, image_ids)
    return rank_within(source_of_image, image_hashes, numbers)


def _first_slices(dataset: PreparedDataset, hash_of_source: np.ndarray, stride: int) -> np.ndarray:
    """Slice with which each image's source begins in its class: (n,) int, to be taken modulo.

    Sources of a class begin with s, s + 1, s + 2, ...; the next class with s + stride.
    """
    source_of_image, _ = dataset.sources
    source_of_class = dataset.labels * len(hash_of_source) + source_of_image
    _, image_of_pair, pair_of_image = np.unique(
        source_of_class, return_index=True, return_inverse=True
    )
    # unique pairs of class and source, sorted by class
    labels = dataset.labels[image_of_pair]
    hashes = hash_of_source[source_of_image[image_of_pair]]
    place_in_class = rank_within(labels, hashes)
    _, start_of_class, class_number = np.unique(labels, return_index=True, return_inverse=True)
    least_hash_of_class = np.minimum.reduceat(hashes, start_of_class)
    # Classes come in the order of their first sources.
    place_among_classes = np.argsort(np.argsort(least_hash_of_class))
    first_slice_of_pair = place_in_class + stride * place_among_classes[class_number]
    first_slice_of_image: np.ndarray = first_slice_of_pair[pair_of_image]
    return first_slice_of_image


def _stride(number_of_slices: int) -> int:
    """Distance of a source's successive slices, such as 3 of 5, near the golden section.

    Any few sources in a row then cover all slices almost equally often.
    """
    stride = round(GOLDEN_SECTION * number_of_slices)
    # Without a common factor every slice has its turn.
    while math.gcd(stride, number_of_slices) > 1:
        stride += 1
    return stride


def rank_within(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Rank of each element in its group, from 0 for the smallest key: (n,) int64.

    Groups 5, 5, 7 with keys 0.8, 0.2, 0.4 give ranks 1, 0, 0.

    Args:
        groups: (n,) integers.
        keys: (n,) each; the last is the primary key, earlier ones break ties.
    """
    order = np.lexsort((*keys, groups))  # group by group, each in order of keys
    ordered_groups = groups[order]
    places = np.arange(len(groups))
    begins_group = np.ones(len(groups), bool)
    begins_group[1:] = ordered_groups[1:] != ordered_groups[:-1]
    start_of_group = np.maximum.accumulate(np.where(begins_group, places, 0))
    rank_in_order = places - start_of_group
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = rank_in_order
    return ranks


def hashed(purpose: str, ids: Iterable[str]) -> np.ndarray:
    """A pseudo-random number from 0 to 1 for each id, the same on every machine: (n,) float.

    Args:
        purpose: such as `order`; another purpose gives other numbers.
    """
    prefix = f"{purpose}\0".encode()
    digests = b"".join([sha256(prefix + text.encode()).digest() for text in ids])
    # Use the first eight of a digest's 32 bytes.
    first_eight_bytes = np.frombuffer(digests, ">u8")[::4]
    return first_eight_bytes.astype(float) / 2.0**64

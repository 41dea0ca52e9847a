"""Subsets of scikit-learn's handwritten digits, plain or in another rendition.

Source: sklearn/datasets/data/digits.csv.gz, one line per image: 64 ink counts from 0 to 16, then the digit. It is the
test set of Alpaydin and Kaynak's Optical Recognition of Handwritten Digits (UCI, 1998).
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage import feature, filters, morphology, restoration, util

from rib.base.errors import UserError
from rib.data.archives import TABLE, archive_members, read_limited
from rib.data.images import DatasetSource, Item
from rib.data.layouts._corruptions import STRENGTHS, corrupt
from rib.data.layouts._digits import LEVELS, on_paper, to_geometry
from rib.data.subsets import rank_within

MEMBER = "sklearn/datasets/data/digits.csv.gz"
DIGITS = tuple("0123456789")
SIDE = 8
GREYS = 3  # bits of a cartoon's lightness: eight flat tones
INKS = [
    "#1b1b6b",
    "#7a1f1f",
    "#1f5c2e",
    "#5a2a6b",
    "#6b4a12",
]  # dark colours of a cartoon, to contrast with the paper
PAPERS = ["#fff4c2", "#d8f0ff", "#ffe0e6", "#e4f5d8", "#f3e6ff"]


def items(dataset: DatasetSource, *, variant: str, first: int, last: int) -> Iterator[Item]:
    """Yield a range of each class's images in a rendition, in file order.

    The order within each class is the same for all datasets, so datasets with disjoint ranges share no source image.
    The source of an image is its line in the file. Raises a UserError if the archive lacks the file, a class is not a
    digit or has too few images, or the variant is unknown.

    Args:
        dataset: a wheel or source archive of scikit-learn; label space keys are the digits; `exclude` has image ids.
        variant: one of VARIANTS.
        first: start of the range in each class's order, from 0.
        last: end of the range, exclusive.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"{dataset}: there is no variant '{variant}'; choose one of {', '.join(VARIANTS)}."
        )
    (archive,) = dataset.archives_for("scikit-learn's package")
    if other := [key for key in dataset.space.keys if key not in DIGITS]:
        raise UserError(
            f"{dataset}: its layout is for digits 0 to 9, but it has a class '{other[0]}'; correct layout or classes."
        )
    table = _read(archive, dataset)
    ranks = class_ranks(table[:, -1])
    for key in dataset.space.keys:
        found = np.count_nonzero(table[:, -1] == int(key))
        if not 0 <= first < last <= found:
            raise UserError(
                f"{dataset}: digit {key} has {found} images, so there are none from {first} to {last}; correct first "
                "and last in its settings."
            )
    labels = {int(key): label for label, key in enumerate(dataset.space.keys)}
    for row, line in enumerate(table):
        name = f"{row:04d}"
        if line[-1] in labels and first <= ranks[row] < last and name not in dataset.exclude:
            ink = on_paper(line[:-1].reshape(SIDE, SIDE))
            random = np.random.default_rng(list(sha256(f"{variant}/{name}".encode()).digest()))
            picture = VARIANTS[variant](ink, random, ranks[row] - first)
            source = f"{dataset.source_group or 'digits'}/{name}"
            pixels = to_geometry(picture, dataset.geometry)
            yield Item(name, labels[line[-1]], source, source, pixels, original=picture)


def class_ranks(digits: np.ndarray) -> np.ndarray:
    """Rank of each image within its class, in a pseudo-random order that is the same on every machine: (n,)."""
    hashes = np.array([sha256(f"digits/{row}".encode()).hexdigest() for row in range(len(digits))])
    return rank_within(digits, hashes)


def _read(archive: Path, dataset: DatasetSource) -> np.ndarray:
    """The file's lines: (n, 65) integers."""
    # A source archive has a folder around the file.
    found = [
        (name, read())
        for name, read in archive_members(archive, lambda n: n.endswith(MEMBER), largest=TABLE)
    ]
    if not found:
        raise UserError(f"{dataset}: {archive} contains no {MEMBER}; correct the dataset's source.")
    (name, data), *_ = found
    where = f"{dataset}: {archive}, {name}"
    try:
        lines = (
            read_limited(gzip.GzipFile(fileobj=io.BytesIO(data)), TABLE, archive, name)
            .decode("ascii")
            .splitlines()
        )
        table = np.array([[int(float(value)) for value in line.split(",")] for line in lines])
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise UserError(
            f"{where} is not a table of digits ({error}); fetch the archive again."
        ) from error
    whole = table.shape[1:] == (SIDE**2 + 1,)
    if (
        not whole
        or table.min() < 0
        or table[:, :-1].max() > LEVELS
        or table[:, -1].max() >= len(DIGITS)
    ):
        raise UserError(
            f"{where} is not a table with {SIDE**2} ink counts and a digit on each line; fetch it again."
        )
    return table


def _plain(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    return ink


def _corrupted(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """One of the corruptions in turn, so that each is equally frequent in every class, at the highest severity."""
    return corrupt(ink, list(STRENGTHS)[rank % len(STRENGTHS)], 5, random)


def _drawn(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit's skeleton, drawn like a soft pencil line."""
    line = morphology.skeletonize(ink < filters.threshold_otsu(ink))
    stroke = filters.gaussian(morphology.dilation(line).astype(float), sigma=1)
    return util.img_as_ubyte(np.clip(1 - 0.7 * stroke, 0, 1))


def _cartoon(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """A few flat tones between an ink colour and a paper colour."""
    smooth = restoration.denoise_bilateral(
        util.img_as_float64(ink), sigma_color=0.2, sigma_spatial=3, mode="edge"
    )
    tones = ImageOps.posterize(Image.fromarray(util.img_as_ubyte(np.clip(smooth, 0, 1))), GREYS)
    black, white = (colours[int(random.integers(len(colours)))] for colours in (INKS, PAPERS))
    return np.asarray(ImageOps.colorize(ImageOps.autocontrast(tones), black=black, white=white))


def _edges(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The outline only."""
    return util.img_as_ubyte(~morphology.dilation(feature.canny(util.img_as_float64(ink), sigma=2)))


# Functions of (64, 64) uint8 ink on paper, a random generator and the image's rank; they return (64, 64[, 3]) uint8.
VARIANTS = {
    "plain": _plain,
    "corrupted": _corrupted,
    "drawn": _drawn,
    "cartoon": _cartoon,
    "edges": _edges,
}

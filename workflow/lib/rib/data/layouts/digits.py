"""Subsets of scikit-learn's handwritten digits, plain or in another rendition.

Source: sklearn/datasets/data/digits.csv.gz, one line per image: 64 ink counts from 0 to 16, then
the digit. It is the test set of Alpaydin and Kaynak's Optical Recognition of Handwritten Digits
(UCI, 1998).
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
# Dark colours of a cartoon, to contrast with the paper.
INKS = ["#1b1b6b", "#7a1f1f", "#1f5c2e", "#5a2a6b", "#6b4a12"]
PAPERS = ["#fff4c2", "#d8f0ff", "#ffe0e6", "#e4f5d8", "#f3e6ff"]
HIGHEST_SEVERITY = 5


def items(dataset: DatasetSource, *, variant: str, first: int, last: int) -> Iterator[Item]:
    """Yield some images of each class, drawn in one of the variants, in the order of the file.

    `class_ranks` numbers the images of each class in the same way for all datasets. A dataset has
    the numbers from `first` to `last`, so datasets with disjoint ranges share no source image. The
    source of an image is its line in the file.

    Args:
        dataset: a wheel or source archive of scikit-learn; label space keys are the digits;
            `exclude` has image ids.
        variant: one of VARIANTS.
        first: number of the first image of each class, from 0.
        last: number after that of the last image of each class.

    Raises:
        UserError: the archive lacks the file, a class is not a digit or has too few images, or the
            variant is unknown.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"{dataset}: there is no variant '{variant}'; choose one of {', '.join(VARIANTS)}."
        )
    (archive,) = dataset.archives_for("scikit-learn's package")
    for key in dataset.space.keys:
        if key not in DIGITS:
            raise UserError(
                f"{dataset}: its layout is for digits 0 to 9, but it has a class '{key}'; correct "
                "layout or classes."
            )
    inks, digits = _read(archive, dataset)
    for key in dataset.space.keys:
        number_of_images = int(np.count_nonzero(digits == int(key)))
        _refuse_range(first, last, number_of_images, f"{dataset}: digit {key}")
    ranks = class_ranks(digits)
    label_of_digit = {int(key): label for label, key in enumerate(dataset.space.keys)}
    for row, digit in enumerate(digits):
        image_id = f"{row:04d}"
        is_in_range = first <= ranks[row] < last
        if digit not in label_of_digit or not is_in_range or image_id in dataset.exclude:
            continue
        seed = sha256(f"{variant}/{image_id}".encode()).digest()
        random = np.random.default_rng(list(seed))
        number_in_dataset = ranks[row] - first  # within its class; variants may alternate by it
        picture = VARIANTS[variant](on_paper(inks[row]), random, number_in_dataset)
        source_id = f"{dataset.source_group or 'digits'}/{image_id}"
        yield Item(
            image_id=image_id,
            label=label_of_digit[digit],
            source_id=source_id,
            object_id=source_id,
            picture=to_geometry(picture, dataset.drawing_geometry),
            original=picture,
        )


def _refuse_range(first: int, last: int, number_of_images: int, class_name: str) -> None:
    """Refuse a range that is empty, or exceeds the images of a class."""
    if not 0 <= first < last <= number_of_images:
        raise UserError(
            f"{class_name} has {number_of_images} images, so there are none from {first} to "
            f"{last}; correct first and last in its settings."
        )


def class_ranks(digits: np.ndarray) -> np.ndarray:
    """Rank of each image among those of its class, from 0: (n,).

    The order is pseudo-random and the same on every machine.

    Args:
        digits: (n,) the class of each image.
    """
    hashes = []
    for row in range(len(digits)):
        hashes.append(sha256(f"digits/{row}".encode()).hexdigest())
    return rank_within(digits, np.array(hashes))


def _read(archive: Path, dataset: DatasetSource) -> tuple[np.ndarray, np.ndarray]:
    """The file's images: their ink, (n, 8, 8) integers from 0 to 16, and their digits, (n,)."""
    member, compressed = _read_member(archive, dataset)
    file_name = f"{dataset}: {archive}, {member}"
    try:
        file = gzip.GzipFile(fileobj=io.BytesIO(compressed))
        text = read_limited(file, TABLE, archive, member).decode("ascii")
        rows = []
        for line in text.splitlines():
            rows.append([int(float(number)) for number in line.split(",")])
        table = np.array(rows)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise UserError(
            f"{file_name} is not a table of digits ({error}); fetch the archive again."
        ) from error
    if not _is_table_of_digits(table):
        raise UserError(
            f"{file_name} is not a table with {SIDE**2} ink counts and a digit on each line; fetch "
            "it again."
        )
    inks = table[:, :-1].reshape(-1, SIDE, SIDE)
    digits = table[:, -1]
    return inks, digits


def _read_member(archive: Path, dataset: DatasetSource) -> tuple[str, bytes]:
    """Name and bytes of the compressed table of digits in scikit-learn's package.

    The name ends with `MEMBER`; in a source archive a folder is around it.
    """
    tables = []
    for name, read in archive_members(archive, lambda name: name.endswith(MEMBER), largest=TABLE):
        tables.append((name, read()))
    if not tables:
        raise UserError(f"{dataset}: {archive} contains no {MEMBER}; correct the dataset's source.")
    return tables[0]


def _is_table_of_digits(table: np.ndarray) -> bool:
    """Whether an array of integers has 64 ink counts from 0 to 16 and a digit in each row."""
    columns = SIDE**2 + 1
    if table.shape[1:] != (columns,):
        return False
    inks = table[:, :-1]
    digits = table[:, -1]
    return bool(table.min() >= 0 and inks.max() <= LEVELS and digits.max() < len(DIGITS))


def _plain(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit as it is."""
    return ink


def _corrupted(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit with one of the corruptions in turn, at the highest severity.

    So each is equally frequent in every class.

    Args:
        ink: (64, 64) uint8, the digit on paper.
        random: from which noise and directions are drawn.
        rank: number of the image in its class, whose turn it is.
    """
    corruptions = list(STRENGTHS)
    corruption = corruptions[rank % len(corruptions)]
    return corrupt(ink, corruption, HIGHEST_SEVERITY, random)


def _drawn(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit's skeleton, drawn like a soft pencil line."""
    is_ink = ink < filters.threshold_otsu(ink)
    skeleton = morphology.skeletonize(is_ink)
    line = morphology.dilation(skeleton).astype(float)
    stroke = filters.gaussian(line, sigma=1)
    drawing: np.ndarray = util.img_as_ubyte(np.clip(1 - 0.7 * stroke, 0, 1))
    return drawing


def _cartoon(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """A few flat tones between an ink colour and a paper colour."""
    smooth = restoration.denoise_bilateral(
        util.img_as_float64(ink), sigma_color=0.2, sigma_spatial=3, mode="edge"
    )
    grey = Image.fromarray(util.img_as_ubyte(np.clip(smooth, 0, 1)))
    tones = ImageOps.autocontrast(ImageOps.posterize(grey, GREYS))
    ink_colour = INKS[int(random.integers(len(INKS)))]
    paper_colour = PAPERS[int(random.integers(len(PAPERS)))]
    return np.asarray(ImageOps.colorize(tones, black=ink_colour, white=paper_colour))


def _edges(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit's outline only, black on white."""
    is_outline = feature.canny(util.img_as_float64(ink), sigma=2)
    is_thick_outline = morphology.dilation(is_outline)
    drawing: np.ndarray = util.img_as_ubyte(~is_thick_outline)
    return drawing


# Functions of (64, 64) uint8 ink on paper, a random generator and the image's rank; they return
# (64, 64[, 3]) uint8.
VARIANTS = {
    "plain": _plain,
    "corrupted": _corrupted,
    "drawn": _drawn,
    "cartoon": _cartoon,
    "edges": _edges,
}

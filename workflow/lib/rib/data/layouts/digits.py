"""The handwritten digits that scikit-learn ships, a part of them, as they are or in another rendition.

Source: sklearn/datasets/data/digits.csv.gz, one line per image: 64 counts of ink from 0 to 16, then the digit. They are
the test part of Alpaydin and Kaynak's Optical Recognition of Handwritten Digits (UCI, 1998).
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rib.classes import ClassSpace
from rib.data.images import Item
from rib.data.layouts._archives import taken
from rib.data.layouts._digits import LEVELS, on_paper, to_geometry
from rib.geometry import Geometry
from rib.io import UserError, archive_members

MEMBER = "sklearn/datasets/data/digits.csv.gz"
DIGITS = tuple("0123456789")
SIDE = 8
GREYS = 3  # bits of a cartoon's lightness: eight flat tones
INKS = ["#1b1b6b", "#7a1f1f", "#1f5c2e", "#5a2a6b", "#6b4a12"]  # dark colours of a cartoon, so that ink stays on paper
PAPERS = ["#fff4c2", "#d8f0ff", "#ffe0e6", "#e4f5d8", "#f3e6ff"]


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
    variant: str,
    first: int,
    last: int,
) -> Iterator[Item]:
    """Yield a part of every class's images in a rendition, in the file's order.

    Each class's images have an order that is the same for all datasets; datasets of which the parts don't overlap share
    no source image. The source of an image is its line, whatever the dataset.

    Args:
        archives: a wheel or source archive of scikit-learn.
        space: its keys are the digits.
        icons: not used.
        exclude: image ids to leave out.
        variant: `plain` or one of VARIANTS.
        first: place in the order of the first image of each class, from 0.
        last: place after that of the last one.

    Raises:
        UserError: the archive lacks the file, a class is no digit or lacks images, or the variant is unknown.
    """
    if variant not in VARIANTS:
        raise UserError(f"{dataset}: there is no variant '{variant}'; there are {', '.join(VARIANTS)}.")
    (archive,) = taken(archives, dataset, "scikit-learn's package")
    for key in space.keys:
        if key not in DIGITS:
            raise UserError(
                f"{dataset}: its layout is for the digits 0 to 9, and '{key}' is one of its classes; correct its layout or "
                "classes."
            )
    table = _read(archive, dataset)
    ranks = class_ranks(table[:, -1])
    for key in space.keys:
        found = int((table[:, -1] == int(key)).sum())
        if not 0 <= first < last <= found:
            raise UserError(
                f"{dataset}: digit {key} has {found} images, so there are none from {first} to {last}; correct settings."
            )
    labels = {int(key): label for label, key in enumerate(space.keys)}
    for row, line in enumerate(table):
        name = f"{row:04d}"
        if line[-1] in labels and first <= ranks[row] < last and name not in exclude:
            ink = on_paper(line[:-1].reshape(SIDE, SIDE))
            random = np.random.default_rng(list(sha256(f"{variant}/{name}".encode()).digest()))
            picture = VARIANTS[variant](ink, random, ranks[row] - first)
            source = f"{source_group or 'digits'}/{name}"
            yield Item(name, labels[line[-1]], source, source, to_geometry(picture, geometry))


def class_ranks(digits: np.ndarray) -> np.ndarray:
    """Place of each image among those of its class, in an order that looks random and is the same everywhere: (n,)."""
    hashes = np.array([sha256(f"digits/{row}".encode()).hexdigest() for row in range(len(digits))])
    ranks = np.empty(len(digits), int)
    for digit in np.unique(digits):
        rows = np.flatnonzero(digits == digit)
        ranks[rows[np.argsort(hashes[rows])]] = np.arange(len(rows))
    return ranks


def _read(archive: Path, dataset: str) -> np.ndarray:
    """The file's lines: (n, 65) integers.

    Raises:
        UserError: the archive has no such file, or that is no table of digits.
    """
    for name, read in archive_members(archive):
        if name.endswith(MEMBER):  # a source archive has a folder around it
            return _table(read(), f"{dataset}: {archive}, {name}")
    raise UserError(f"{dataset}: {archive} holds no {MEMBER}; correct the dataset's source.")


def _table(data: bytes, where: str) -> np.ndarray:
    try:
        lines = csv.reader(io.StringIO(gzip.decompress(data).decode("ascii")))
        table = np.array([[int(float(value)) for value in line] for line in lines])
    except (OSError, EOFError, zlib.error, ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{where} is no table of digits ({error}); fetch the archive anew.") from error
    whole = table.shape[1:] == (SIDE**2 + 1,)
    if not whole or table.min() < 0 or table[:, :-1].max() > LEVELS or table[:, -1].max() >= len(DIGITS):
        raise UserError(
            f"{where} is no table of {SIDE**2} counts of ink and a digit on each line; fetch the archive anew."
        )
    return table


def _plain(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    return ink


def _corrupted(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """One of five corruptions in turn, so that every class has as many of each."""
    from skimage import exposure, filters, transform, util

    image = util.img_as_float64(ink)
    corruptions: list[Callable[[], np.ndarray]] = [
        lambda: util.random_noise(image, "gaussian", rng=random, var=0.15),
        lambda: util.random_noise(image, "s&p", rng=random, amount=0.3),
        lambda: filters.gaussian(image, sigma=6),
        lambda: exposure.rescale_intensity(image, in_range=(0, 1), out_range=(0.35, 0.6)),
        lambda: transform.rotate(image, float(random.choice([-35, 35])), cval=1),
    ]
    return util.img_as_ubyte(np.clip(corruptions[rank % len(corruptions)](), 0, 1))


def _drawn(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The digit's middle line, as a soft pencil draws it."""
    from skimage import filters, morphology, util

    line = morphology.skeletonize(ink < filters.threshold_otsu(ink))
    stroke = filters.gaussian(morphology.dilation(line).astype(float), sigma=1)
    return util.img_as_ubyte(np.clip(1 - 0.7 * stroke, 0, 1))


def _cartoon(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """A few flat tones between a coloured ink and a coloured paper."""
    from skimage import restoration, util

    smooth = restoration.denoise_bilateral(util.img_as_float64(ink), sigma_color=0.2, sigma_spatial=3, mode="edge")
    tones = ImageOps.posterize(Image.fromarray(util.img_as_ubyte(np.clip(smooth, 0, 1))), GREYS)
    black, white = (colours[int(random.integers(len(colours)))] for colours in (INKS, PAPERS))
    return np.asarray(ImageOps.colorize(ImageOps.autocontrast(tones), black=black, white=white))


def _edges(ink: np.ndarray, random: np.random.Generator, rank: int) -> np.ndarray:
    """The outline alone."""
    from skimage import feature, morphology, util

    edges = feature.canny(util.img_as_float64(ink), sigma=2)
    return util.img_as_ubyte(~morphology.dilation(edges))


# By name: (64, 64) uint8 ink on paper, numbers to draw from and the image's place in its part, to (64, 64[, 3]) uint8.
VARIANTS = {"plain": _plain, "corrupted": _corrupted, "drawn": _drawn, "cartoon": _cartoon, "edges": _edges}

"""Decode images, and resize and crop them to a model's geometry, as uint8 RGB arrays."""

import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace
from rib.data.variables import PHOTO_MEGAPIXELS, photo_limit
from rib.schema.geometry import Geometry

# Formats that browsers show. Pillow has more, but runs external programs for some, such as EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
BLACK_IS_ZERO = 1  # TIFF's PhotometricInterpretation
SIGNED = 2  # TIFF's SampleFormat
LONGEST_SHAPE = 1000  # largest aspect ratio; more extreme images show nothing
Image.MAX_IMAGE_PIXELS = None  # `decode` has another limit
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FILTER_RADIUS = 2  # of the bicubic filter, in pixels; the bilinear filter has 1
# If an enlarged image would have more pixels, only the region under the crop is resized: 1 x 1000
# pixels would become 4 GB. Values may then be rounded differently, so the bound leaves ordinary
# images alone: at 224 pixels no image reaches it; at 1024 pixels, the largest size, with a crop of
# 0.875, only images more than 73 times as long as wide. It equals the default of
# limits.photo_megapixels.
MOST_RESIZED_PIXELS = 10**8


@dataclass(frozen=True)
class DatasetSource:
    """A dataset's archives and choices, from which a layout (reader of a format) yields images."""

    name: str
    archives: Sequence[Path]
    space: LabelSpace  # classes whose images are read
    # Geometry at which images are drawn; None if images are stored as published.
    geometry: Geometry | None
    # Name shared by datasets made from the same source images, such as `imagenet_val`; None if this
    # is the only one.
    source_group: str | None = None
    # Icon names, such as {"1f98a": "fox"}, if the archive has no table of them.
    icons: Mapping[str, str] = field(default_factory=dict)
    exclude: Collection[str] = ()  # image ids or class keys to leave out
    # File of another layout that provides the images, if any.
    photos_layout: str | None = None
    # SHA-256 of the archive's files by name, such as {"images.csv": "9f86..."}, if the entry names
    # a file with them.
    file_digests: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def source(self) -> str:
        """Prefix of source ids: the source group, or else the dataset."""
        return self.source_group or self.name

    @property
    def drawing_geometry(self) -> Geometry:
        """The geometry for drawings.

        Raises:
            UserError: images are stored as published, which drawings can't be.
        """
        if self.geometry is None:
            raise UserError(f"{self} has drawings, not photos; set the dataset's storage to array.")
        return self.geometry

    def archives_for(self, *descriptions: str) -> Sequence[Path]:
        """The archives, which must be as many as the descriptions of what the layout needs.

        For example `archives_for("the images", "the development kit")`.

        Raises:
            UserError: they are not.
        """
        if len(self.archives) != len(descriptions):
            raise UserError(
                f"{self}: the layout needs {len(descriptions)} archive(s) "
                f"({', then '.join(descriptions)}), but the entry has {len(self.archives)}; "
                "correct its sources or layout."
            )
        return self.archives


class CorruptImageError(UserError):
    """An image that can't be decoded."""


@dataclass(frozen=True)
class Photo:
    """An encoded image in an archive."""

    # Returns the encoded bytes; must be called before the next archive member is requested.
    read: Callable[[], bytes]
    name: str  # for messages
    border: int = 0  # pixels to crop on each side


@dataclass(frozen=True)
class Item:
    """One image of a dataset."""

    image_id: str  # unique within the dataset
    label: int  # class index in the label space
    # Same for images made from the same original (a photo or a vendor's drawing): `fluent/1f98a`.
    source_id: str
    # Unit that bootstraps draw: the source image or, for emoji, the object (`1f98a`).
    object_id: str
    # An encoded photo, or a drawing: (size, size, 3) uint8 RGB.
    picture: Photo | np.ndarray
    # Levels by which accuracies are split, such as {"severity": 3}; same names for every image.
    slices: Mapping[str, str | int] = field(default_factory=dict)
    # The drawing before resizing, (h, w[, 3]) uint8, to find identical drawings; None if it was
    # made at this size. A layout that changes another layout's `picture` sets it to None.
    original: Image.Image | np.ndarray | None = None
    # Author, page and licence, which must stand wherever the image is shown; None if the dataset's
    # entry says all there is to say.
    attribution: str | None = None


def photo_item(
    label: int, image_id: str, group: str, source: str, photo: Photo, /, **slices: str | int
) -> Item:
    """Item for a photo; bootstraps draw all images made from its source image together.

    Args:
        label: class index in the label space.
        image_id: unique within the dataset, such as `n01440764/1.JPEG`.
        group: prefix of source ids, shared by datasets of the same source images.
        source: the source image within the group, such as `n01440764/1`.
        photo: the encoded photo in its archive.
        slices: levels by which accuracies are split, such as severity=3.
    """
    source_id = f"{group}/{source}"
    return Item(
        image_id=image_id,
        label=label,
        source_id=source_id,
        object_id=source_id,
        picture=photo,
        slices=slices,
    )


def decode(data: bytes, name: str, border: int = 0) -> Image.Image:
    """Decode an image to RGB, without its border; transparency becomes white.

    The first frame or page counts. A JPEG's EXIF rotation is not applied; a TIFF's rotation is part
    of its format, and is applied.

    Args:
        data: the encoded image.
        name: for messages.
        border: pixels to crop on each side.

    Raises:
        CorruptImageError: the bytes are no valid image, have too many pixels or values of an
            unknown range, or nothing is left without the border.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads only the header
        _refuse_unsuitable_size(image)
        _refuse_unknown_range(image)
        image = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types on corrupt files
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        raise CorruptImageError(
            f"the image {name} can't be decoded ({reason}); exclude it in the dataset's entry."
        ) from error
    if min(image.size) <= 2 * border:
        raise CorruptImageError(
            f"the image {name} is smaller than its border of {border} px on each side; exclude it "
            "in the dataset's entry."
        )
    if border:
        image = ImageOps.crop(image, border)
    return image


def _refuse_unsuitable_size(image: Image.Image) -> None:
    """A ValueError for too many pixels, or an extreme aspect ratio."""
    if image.width * image.height > photo_limit(PHOTO_MEGAPIXELS):
        raise ValueError(
            f"{image.width} x {image.height} is above limits.photo_megapixels in config.yaml"
        )
    if max(image.size) > LONGEST_SHAPE * min(image.size):
        raise ValueError(f"it is {image.width} x {image.height} pixels")


def _refuse_unknown_range(image: Image.Image) -> None:
    """A ValueError if nothing says which values are black and white, as in a TIFF of floats."""
    hint = "save it with 8 bits per channel"
    if image.mode == "F":
        raise ValueError(f"its pixels are floating-point numbers, whose range is unknown; {hint}")
    if not isinstance(image, TiffImageFile):
        return
    if image.mode == "I" or SIGNED in image.tag_v2.get(SAMPLEFORMAT, ()):
        raise ValueError(
            f"its pixels are integers of 32 bits or with a sign, whose range is unknown; {hint}"
        )
    has_16_bits = image.tag_v2.get(BITSPERSAMPLE) == (16,)
    counts_up = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == BLACK_IS_ZERO
    if image.mode.startswith("I;16") and not (has_16_bits and counts_up):
        raise ValueError(f"its grey values are not 16 bits from black to white; {hint}")


def _to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, with the upper 8 bits of 16-bit greys, and white behind transparency."""
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
        upper_8_bits = np.asarray(image) >> 8
        image = Image.fromarray(upper_8_bits.astype(np.uint8))
    if image.mode == "La":  # grey, premultiplied by its opacity
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Resize the shorter side (or both) to floor(size / crop_pct), then crop the centre.

    For example to 224 / 0.875 = 256 pixels, then to 224. This is the usual ImageNet evaluation
    transform, as in timm/data/transforms_factory.py, transforms_imagenet_eval.

    Returns:
        (size, size, 3) uint8.
    """
    resized_side = int(geometry.size / geometry.crop_pct)
    if geometry.crop_mode == "squash":
        width = resized_side
        height = resized_side
    else:
        shorter_side = min(image.size)
        width = resized_side * image.width // shorter_side
        height = resized_side * image.height // shorter_side
    left = round((width - geometry.size) / 2)
    top = round((height - geometry.size) / 2)
    window = (left, top, left + geometry.size, top + geometry.size)
    resample = RESAMPLING[geometry.interpolation]
    # A very long image would become huge, so only the region under the crop is resized.
    if width * height > max(MOST_RESIZED_PIXELS, image.width * image.height):
        return np.asarray(resize_window(image, (width, height), window, resample))
    resized = image.resize((width, height), resample)
    return np.asarray(resized.crop(window))


def resize_window(
    image: Image.Image,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Resize an image and crop a window, without resizing pixels outside the window.

    If both sides are enlarged, the result equals `image.resize(size, resample).crop(window)` up to
    rounding: values differ by at most 2.

    Args:
        size: width and height in pixels of the whole resized image.
        window: left, top, right and bottom of the crop, in pixels of the resized image, inside it.
        resample: bilinear or bicubic.
    """
    resized_width, resized_height = size
    left, top, right, bottom = window
    # A resized pixel is a weighted mean of nearby pixels, so only this region counts.
    first_column, last_column = _source_span(left, right, image.width, resized_width)
    first_row, last_row = _source_span(top, bottom, image.height, resized_height)
    region = image.crop((first_column, first_row, last_column, last_row))
    # Edges of the window in pixels of the region.
    left_in_region = left * image.width / resized_width - first_column
    right_in_region = right * image.width / resized_width - first_column
    top_in_region = top * image.height / resized_height - first_row
    bottom_in_region = bottom * image.height / resized_height - first_row
    # One call per side fixes the order, which matters because values beyond 0 and 255 are clipped
    # after the first side. If both sides are enlarged, Pillow starts with the width for a whole
    # image, but perhaps with the height for this region.
    columns = (left_in_region, 0, right_in_region, region.height)
    region = region.resize((right - left, region.height), resample, columns)
    rows = (0, top_in_region, region.width, bottom_in_region)
    return region.resize((region.width, bottom - top), resample, rows)


def _source_span(start: int, end: int, source: int, resized: int) -> tuple[int, int]:
    """Pixels [first, last) of a side of length `source` that affect resized ones [start, end)."""
    scale = source / resized
    # A filter reaches further when several pixels become one. One more pixel allows for rounding.
    reach = math.ceil(FILTER_RADIUS * max(scale, 1)) + 1
    first = max(0, math.floor(start * scale) - reach)
    last = min(source, math.ceil(end * scale) + reach)
    return first, last


def refuse_margin(margin: float, dataset: DatasetSource) -> None:
    """Raise a UserError if a margin is negative, or leaves nothing of a drawing's square."""
    if not 0 <= margin < 0.5:
        raise UserError(
            f"{dataset}: margin is {margin}; set a fraction of at least 0 and below 0.5 in its "
            "settings."
        )


def fit_on_white(image: Image.Image, geometry: Geometry, margin: float) -> np.ndarray:
    """Fit a whole picture into a white square: (size, size, 3) uint8.

    Args:
        image: in RGB.
        geometry: its size is the square's side.
        margin: white on each side, as a fraction of the square's side.
    """
    longer_side = round(geometry.size * (1 - 2 * margin))
    scale = longer_side / max(image.size)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    resized = image.resize((width, height), RESAMPLING[geometry.interpolation])
    square = Image.new("RGB", (geometry.size, geometry.size), "white")
    left = (geometry.size - width) // 2
    top = (geometry.size - height) // 2
    square.paste(resized, (left, top))
    return np.asarray(square)

"""Images at a model's geometry, as uint8 RGB arrays."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from rib.geometry import Geometry
from rib.io import UserError

# What browsers show. Pillow knows more, some of which, as EPS, it has other programs read.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LONGEST_SHAPE = 1000  # times as long as wide: more would be enlarged beyond all memory, and is no picture
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class CorruptImageError(UserError):
    """An image that can't be decoded."""


@dataclass(frozen=True)
class Photo:
    """A photo as its archive holds it.

    Attributes:
        read: returns the encoded bytes; to be called before the archive's next member is asked for.
        name: of the photo, for messages.
        border: pixels to cut off on each side.
    """

    read: Callable[[], bytes]
    name: str
    border: int = 0


@dataclass(frozen=True)
class Item:
    """One image of a dataset.

    Attributes:
        image_id: names the image within its dataset.
        label: index of its class in the class space.
        source_id: images with one source_id were made from one original (a photo, a vendor's drawing).
        object_id: images with one object_id are resampled together in intervals (photo or, in emoji, the object).
        picture: a photo, or what a layout drew itself: (size, size, 3) uint8 RGB.
    """

    image_id: str
    label: int
    source_id: str
    object_id: str
    picture: Photo | np.ndarray


def photo_item(label: int, image_id: str, group: str, source: str, photo: Photo) -> Item:
    """Item of a photo, which is resampled by itself: images of one group with one source come from one original."""
    return Item(image_id, label, f"{group}/{source}", f"{group}/{source}", photo)


def to_geometry(data: bytes, name: str, border: int, geometry: Geometry) -> np.ndarray:
    """Decode an encoded photo and bring it to a geometry: (size, size, 3) uint8 RGB.

    Raises:
        CorruptImageError: it can't be decoded, or is smaller than its border.
    """
    return resize_and_crop(without_border(decode(data, name), name, border), geometry)


def without_border(image: Image.Image, name: str, border: int) -> Image.Image:
    """An image less so many pixels on each side.

    Raises:
        CorruptImageError: nothing would be left.
    """
    if not border:
        return image
    if min(image.size) <= 2 * border:
        raise CorruptImageError(f"the image {name} is smaller than its border of {border} px on each side.")
    return image.crop((border, border, image.width - border, image.height - border))


def decode(data: bytes, name: str) -> Image.Image:
    """Decode an encoded image to RGB; transparent parts become white, a rotation in EXIF is not applied.

    Raises:
        CorruptImageError: the bytes are no image; the sentence names it.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if max(image.size) > LONGEST_SHAPE * min(image.size):
            raise ValueError(f"it is {image.width} x {image.height} pixels")
        if image.mode.startswith("I"):  # 16 bits, which Pillow's conversion would clip to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # over broken files Pillow raises whatever its parts do
        why = f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise CorruptImageError(
            f"the image {name} can't be decoded ({why}); fetch its archive anew or exclude it in its entry."
        ) from error


def resize_and_crop(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """Resize the shorter side to floor(size / crop), then crop the centre: the usual ImageNet evaluation transform.

    Source: timm/data/transforms_factory.py, transforms_imagenet_eval.
    """
    shorter = int(geometry.size / geometry.crop)
    width, height = (shorter * side // min(image.size) for side in image.size)
    image = image.resize((width, height), RESAMPLING[geometry.interpolation])
    left, top = round((width - geometry.size) / 2), round((height - geometry.size) / 2)
    return np.asarray(image.crop((left, top, left + geometry.size, top + geometry.size)))


def refuse_margin(margin: float, dataset: str) -> None:
    """Stop where a margin leaves nothing of a square.

    Raises:
        UserError: it does, or is negative.
    """
    if not 0 <= margin < 0.5:
        raise UserError(f"{dataset}: margin is {margin}; give a share from 0 to below 0.5 in its settings.")


def fit_on_white(image: Image.Image, geometry: Geometry, margin: float) -> np.ndarray:
    """Resize a whole picture into a white square, keeping its aspect and a margin.

    Args:
        margin: white on each side, as a share of the square's side, 0 to below 0.5.
    """
    inner = round(geometry.size * (1 - 2 * margin))
    scale = inner / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], RESAMPLING[geometry.interpolation])
    canvas = Image.new("RGB", (geometry.size, geometry.size), "white")
    canvas.paste(image, ((geometry.size - image.width) // 2, (geometry.size - image.height) // 2))
    return np.asarray(canvas)

"""Digits rendered in a package's fonts, reduced to 8 x 8 ink counts like the handwritten ones."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rib.base.errors import UserError
from rib.data.archives import FONT, archive_members
from rib.data.images import DatasetSource, Item
from rib.data.layouts._digits import LEVELS, on_paper, to_geometry

BITMAP = 32  # side of the normalised bitmap, whose 4 x 4 blocks are counted (UCI, optdigits.names)
LARGEST = 40  # largest side of a valid glyph, as a multiple of DRAWN
DRAWN = 128  # height in pixels at which a glyph is drawn


def items(dataset: DatasetSource, *, fonts: list[str]) -> Iterator[Item]:
    """Yield each class's digit in each font; raise a UserError if a font is missing or can't be drawn.

    Args:
        dataset: a package with the fonts, in any folder; label space keys are the digits; `exclude` has image ids
            (`<font>_<digit>`).
        fonts: names of TrueType files without their extension.
    """
    found = {}
    for archive in dataset.archives:
        for name, read in archive_members(archive, largest=FONT):
            path = PurePosixPath(name)
            if path.suffix == ".ttf" and path.stem in fonts:
                found[path.stem] = read()
    if missing := [name for name in fonts if name not in found]:
        where = ", ".join(archive.name for archive in dataset.archives) or "its source"
        raise UserError(
            f"{dataset}: {where} contains no font '{missing[0]}'; correct fonts in its settings."
        )
    for label, digit in enumerate(dataset.space.keys):
        for name in fonts:
            if (image_id := f"{name}_{digit}") not in dataset.exclude:
                source = f"{dataset.source}/{image_id}"
                ink = _ink(digit, found[name], f"{dataset}: the font '{name}'")
                picture = on_paper(ink)
                pixels = to_geometry(picture, dataset.geometry)
                yield Item(image_id, label, source, source, pixels, original=picture)


def _ink(digit: str, data: bytes, where: str) -> np.ndarray:
    """Ink of a digit in a font, scaled to fill its box: (8, 8) integers from 0 to 16."""
    try:
        # Pillow's other layout engine, if installed, would place glyphs differently.
        font = ImageFont.truetype(io.BytesIO(data), DRAWN, layout_engine=ImageFont.Layout.BASIC)
        left, top, right, bottom = font.getbbox(digit)
        if not (0 < right - left <= LARGEST * DRAWN and 0 < bottom - top <= LARGEST * DRAWN):
            raise ValueError(f"its glyph has {right - left} x {bottom - top} pixels")
        glyph = Image.new("L", (right - left, bottom - top), 0)
        ImageDraw.Draw(glyph).text((-left, -top), digit, fill=255, font=font)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where} can't draw '{digit}' ({error}); remove it from fonts in its settings."
        ) from error
    scale = BITMAP / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.BOX)
    bitmap = Image.new("L", (BITMAP, BITMAP), 0)
    bitmap.paste(glyph, ((BITMAP - glyph.width) // 2, (BITMAP - glyph.height) // 2))
    side = int(LEVELS**0.5)
    return (
        (np.asarray(bitmap) >= 128)
        .reshape(BITMAP // side, side, BITMAP // side, side)
        .sum(axis=(1, 3))
    )

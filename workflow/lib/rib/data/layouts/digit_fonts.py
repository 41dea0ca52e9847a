"""Digits set in the fonts that a package ships, brought to 8 x 8 counts of ink as the handwritten ones were."""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rib.classes import ClassSpace
from rib.data.images import Item
from rib.data.layouts._digits import LEVELS, on_paper, to_geometry
from rib.geometry import Geometry
from rib.io import UserError, archive_members

BITMAP = 32  # side of the normalised bitmap, of which each 4 x 4 pixels are counted (UCI, optdigits.names)
LARGEST = 40  # pixels of a glyph's side, as a multiple of its height: more is no glyph
DRAWN = 128  # height in pixels at which a glyph is drawn before


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
    fonts: list[str],
) -> Iterator[Item]:
    """Yield each class's digit in each font.

    Args:
        archives: a package that ships the fonts, wherever they lie in it.
        space: its keys are the digits.
        icons: not used.
        exclude: image ids (`<font>_<digit>`) to leave out.
        fonts: names of TrueType files without their ending.

    Raises:
        UserError: the archive lacks a font, or one can't be drawn.
    """
    found = {}
    for archive in archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            if path.suffix == ".ttf" and path.stem in fonts:
                found[path.stem] = read()
    if missing := [name for name in fonts if name not in found]:
        where = ", ".join(archive.name for archive in archives) or "its source"
        raise UserError(f"{dataset}: {where} ships no font '{missing[0]}'; correct fonts in its settings.")
    for label, digit in enumerate(space.keys):
        for name in fonts:
            if (image_id := f"{name}_{digit}") not in exclude:
                source = f"{source_group or dataset}/{image_id}"
                pixels = to_geometry(on_paper(_drawn(digit, found[name], f"{dataset}: the font '{name}'")), geometry)
                yield Item(image_id, label, source, source, pixels)


def _drawn(digit: str, data: bytes, where: str) -> np.ndarray:
    """Ink of a digit in a font file.

    Raises:
        UserError: it is no such file, or the font has no such digit.
    """
    try:
        # Another layout engine, where Pillow has one, would place glyphs otherwise.
        font = ImageFont.truetype(io.BytesIO(data), DRAWN, layout_engine=ImageFont.Layout.BASIC)
        return counts(digit, font)
    except (OSError, ValueError) as error:
        raise UserError(f"{where} can't draw '{digit}' ({error}); take it out of fonts in its settings.") from error


def counts(digit: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Ink of a digit that fills its box: (8, 8) integers from 0 to 16.

    Raises:
        ValueError: the font draws nothing, or something without bounds.
    """
    left, top, right, bottom = font.getbbox(digit)
    if not (0 < right - left <= LARGEST * DRAWN and 0 < bottom - top <= LARGEST * DRAWN):
        raise ValueError(f"its glyph has {right - left} x {bottom - top} pixels")
    glyph = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(glyph).text((-left, -top), digit, fill=255, font=font)
    scale = BITMAP / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.BOX)
    bitmap = Image.new("L", (BITMAP, BITMAP), 0)
    bitmap.paste(glyph, ((BITMAP - glyph.width) // 2, (BITMAP - glyph.height) // 2))
    side = int(LEVELS**0.5)
    blocks = (np.asarray(bitmap) >= 128).reshape(BITMAP // side, side, BITMAP // side, side)
    return blocks.sum(axis=(1, 3))

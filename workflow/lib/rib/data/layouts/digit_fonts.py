"""Digits rendered in a package's fonts, reduced to 8 x 8 ink counts like the handwritten ones."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rib.base.errors import UserError
from rib.data.archives import FONT, archive_members
from rib.data.images import DatasetSource, Item
from rib.data.layouts._digits import on_paper, to_geometry

# Side of the normalised bitmap, whose 4 x 4 blocks are counted (UCI, optdigits.names).
BITMAP = 32
BLOCK = 4
INK = 128  # a pixel is ink from this grey on
DRAWN = 128  # height in pixels at which a glyph is drawn
LARGEST = 40  # largest side of a valid glyph, as a multiple of DRAWN


def items(dataset: DatasetSource, *, fonts: list[str]) -> Iterator[Item]:
    """Yield each class's digit in each font.

    Args:
        dataset: a package with the fonts, in any folder; label space keys are the digits; `exclude`
            has image ids (`<font>_<digit>`).
        fonts: names of TrueType files without their extension.

    Raises:
        UserError: a font is missing or can't be drawn.
    """
    file_of_font = _read_fonts(dataset, fonts)
    for label, digit in enumerate(dataset.space.keys):
        for font in fonts:
            image_id = f"{font}_{digit}"
            if image_id in dataset.exclude:
                continue
            glyph = _draw_glyph(digit, file_of_font[font], f"{dataset}: the font '{font}'")
            picture = on_paper(_count_ink(glyph))
            source_id = f"{dataset.source}/{image_id}"
            yield Item(
                image_id=image_id,
                label=label,
                source_id=source_id,
                object_id=source_id,
                picture=to_geometry(picture, dataset.drawing_geometry),
                original=picture,
            )


def _read_fonts(dataset: DatasetSource, fonts: Sequence[str]) -> dict[str, bytes]:
    """The file of each font, from a dataset's archives; a UserError if one is missing."""
    file_of_font = {}
    for archive in dataset.archives:
        for name, read in archive_members(archive, largest=FONT):
            path = PurePosixPath(name)
            if path.suffix == ".ttf" and path.stem in fonts:
                file_of_font[path.stem] = read()
    for font in fonts:
        if font not in file_of_font:
            archives = ", ".join(archive.name for archive in dataset.archives) or "its source"
            raise UserError(
                f"{dataset}: {archives} contains no font '{font}'; correct fonts in its settings."
            )
    return file_of_font


def _draw_glyph(digit: str, font_file: bytes, font_name: str) -> Image.Image:
    """A digit in a font, white on black, in the box that it fills; `font_name` is for messages."""
    try:
        # Pillow's other layout engine, if installed, would place glyphs differently.
        font = ImageFont.truetype(
            io.BytesIO(font_file), DRAWN, layout_engine=ImageFont.Layout.BASIC
        )
        left, top, right, bottom = font.getbbox(digit)
        width = right - left
        height = bottom - top
        if not (0 < width <= LARGEST * DRAWN and 0 < height <= LARGEST * DRAWN):
            raise ValueError(f"its glyph has {width} x {height} pixels")
        # Whole numbers, though Pillow says float.
        glyph = Image.new("L", (int(width), int(height)), 0)
        ImageDraw.Draw(glyph).text((-left, -top), digit, fill=255, font=font)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{font_name} can't draw '{digit}' ({error}); remove it from fonts in its settings."
        ) from error
    return glyph


def _count_ink(glyph: Image.Image) -> np.ndarray:
    """How much ink a glyph has in each of 8 x 8 blocks: (8, 8) integers from 0 to 16.

    The glyph, grey on black, is scaled to a bitmap of 32 x 32 pixels, which are ink or not; a block
    has 4 x 4 of them.
    """
    scale = BITMAP / max(glyph.size)
    width = max(1, round(glyph.width * scale))
    height = max(1, round(glyph.height * scale))
    scaled = glyph.resize((width, height), Image.Resampling.BOX)
    bitmap = Image.new("L", (BITMAP, BITMAP), 0)
    left = (BITMAP - width) // 2
    top = (BITMAP - height) // 2
    bitmap.paste(scaled, (left, top))
    is_ink = np.asarray(bitmap) >= INK
    blocks_along_side = BITMAP // BLOCK
    # Axes: row of blocks, row in the block, column of blocks, column in the block.
    blocks = is_ink.reshape(blocks_along_side, BLOCK, blocks_along_side, BLOCK)
    ink: np.ndarray = blocks.sum(axis=(1, 3))
    return ink

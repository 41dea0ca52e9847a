"""Iconify icon sets: SVG bodies in icons.json, icon names by codepoint in chars.json.

Source: Iconify's format IconifyJSON (icons, aliases, default width, height, left and top).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from rib.base.errors import UserError
from rib.data.archives import JSON, archive_members
from rib.data.images import DatasetSource, Item, decode, refuse_margin
from rib.data.svg import Draw, renderer

ICONS = "package/icons.json"
CHARS = "package/chars.json"
LONGEST_ALIAS_CHAIN = 10
BOX_DEFAULTS = {"width": 16, "height": 16, "left": 0, "top": 0}  # as in Iconify's format
PROPERTY_TYPES = {
    "body": str,
    "parent": str,
    "hFlip": bool,
    "vFlip": bool,
    "rotate": int,
    "width": int | float,
    "height": int | float,
    "left": int | float,
    "top": int | float,
}
FARTHEST = 1e6  # units of a drawing


def items(dataset: DatasetSource, *, margin: float) -> Iterator[Item]:
    """Yield one drawing per class in the set, in the order of the label space.

    Args:
        dataset: the npm package; label space keys are codepoints as in chars.json (lower-case hex,
            joined by `-`); `exclude` has codepoints; `icons` maps codepoints to icon names
            (`{"1f98a": "fox"}`) for a set without chars.json.
        margin: white on each side, as a fraction of the square's side.

    Raises:
        UserError: a file is missing or invalid, an icon is unknown or can't be rendered, or a
            setting is out of range.
    """
    refuse_margin(margin, dataset)
    (archive,) = dataset.archives_for("the npm package")
    files = _read_package(archive, dataset)
    icon_set = files[ICONS]
    icon_of_codepoint = dataset.icons or files.get(CHARS, {})
    set_name = f"{dataset} ({archive.name})"
    with renderer() as draw:
        for label, codepoint in enumerate(dataset.space.keys):
            if codepoint not in icon_of_codepoint or codepoint in dataset.exclude:
                continue
            icon_name = icon_of_codepoint[codepoint]
            yield Item(
                image_id=icon_name,
                label=label,
                source_id=f"{dataset.source}/{codepoint}",
                object_id=codepoint,
                picture=render(
                    draw, icon_set, icon_name, dataset.drawing_geometry.size, margin, set_name
                ),
            )


def _read_package(archive: Path, dataset: DatasetSource) -> dict[str, dict[str, Any]]:
    """Content by file: {"package/icons.json": {...}, "package/chars.json": {"1f98a": "fox"}}."""
    files = {}
    for name, read in archive_members(archive, {ICONS, CHARS}, largest=JSON):
        try:
            files[name] = json.loads(read())
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{dataset}: {archive}, {name} is not valid JSON ({error}); fetch it again."
            ) from error
    if ICONS not in files:
        raise UserError(
            f"{archive} has no {ICONS}; it is not an Iconify icon set: correct the entry of "
            f"{dataset}."
        )
    for name, content in files.items():
        is_valid = _is_icon_set(content) if name == ICONS else _is_table_of_names(content)
        if not is_valid:
            raise UserError(
                f"{dataset}: {archive}, {name} is not in Iconify's icon set format; correct its "
                "source."
            )
    return files


def _is_icon_set(content: object) -> bool:
    """Whether a content is as in icons.json; an icon is checked when it is drawn."""
    if not _has_valid_properties(content):
        return False
    has_icons = isinstance(content.get("icons", {}), dict)
    has_aliases = isinstance(content.get("aliases", {}), dict)
    return has_icons and has_aliases


def _is_table_of_names(content: object) -> bool:
    """Whether a content is as in chars.json, such as {"1f98a": "fox"}."""
    if not isinstance(content, dict):
        return False
    return all(isinstance(name, str) and name.isprintable() for name in content.values())


def _has_valid_properties(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether a set's, icon's or alias's types and ranges are as in Iconify's format."""
    if not isinstance(content, dict):
        return False
    for key, property_type in PROPERTY_TYPES.items():
        if key in content and not isinstance(content[key], property_type):
            return False
    for key in BOX_DEFAULTS:
        if key in content and not abs(content[key]) < FARTHEST:
            return False
    return all(content[key] > 0 for key in ("width", "height") if key in content)


def render(
    draw: Draw, icon_set: Mapping[str, Any], name: str, size: int, margin: float, set_name: str
) -> np.ndarray:
    """Draw an icon centred on a white square, (size, size, 3) uint8; `currentColor` is black.

    Args:
        draw: renders an SVG, from `rib.data.svg.renderer`.
        icon_set: content of icons.json: `{"icons": {"fox": {"body": "<path .../>"}}}`.
        name: of the icon.
        size: side of the square in pixels.
        margin: white on each side, as a fraction of the square's side.
        set_name: for messages.

    Raises:
        UserError: the set has no such icon, the icon can't be rendered, or nothing is visible.
    """
    icon = _resolve(icon_set, name, set_name)
    box = {**BOX_DEFAULTS, **icon_set, **icon.properties}
    width = box["width"]
    height = box["height"]
    side = max(width, height) / (1 - 2 * margin)
    left = box["left"] + (width - side) / 2
    top = box["top"] + (height - side) / 2
    view = f"{left:.6g} {top:.6g} {side:.6g} {side:.6g}"
    try:
        png = draw(icon.properties["body"], view, size)
        pixels = np.asarray(decode(png, f"{set_name}, icon '{name}'"))
        if (pixels == 255).all():
            raise ValueError("nothing is visible")
    except ValueError as error:
        raise UserError(
            f"{set_name}: the icon '{name}' can't be rendered ({error}); exclude it in the "
            "dataset's entry."
        ) from error
    if icon.is_flipped_vertically:
        pixels = pixels[::-1]
    if icon.is_flipped_horizontally:
        pixels = pixels[:, ::-1]
    clockwise_turns = -icon.quarter_turns % 4  # NumPy turns counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, clockwise_turns))


@dataclass(frozen=True)
class ResolvedIcon:
    """An icon after following its aliases."""

    properties: Mapping[str, Any]  # as in Iconify's format, always with `body`
    is_flipped_horizontally: bool
    is_flipped_vertically: bool
    quarter_turns: int  # clockwise


def _resolve(icon_set: Mapping[str, Any], name: str, set_name: str) -> ResolvedIcon:
    """The icon with this name, or the icon to which an alias with this name leads."""
    box_of_aliases: dict[str, Any] = {}
    is_flipped_horizontally = False
    is_flipped_vertically = False
    quarter_turns = 0
    current = name
    for _ in range(LONGEST_ALIAS_CHAIN):
        icon = icon_set.get("icons", {}).get(current)
        alias = icon_set.get("aliases", {}).get(current)
        for entry in (icon, alias):
            if entry is not None and not _has_valid_properties(entry):
                raise UserError(
                    f"{set_name}: the icon '{current}' is not in Iconify's format; exclude it in "
                    "the dataset's entry."
                )
        if icon and "body" in icon:
            return ResolvedIcon(
                properties={**icon, **box_of_aliases},
                is_flipped_horizontally=is_flipped_horizontally,
                is_flipped_vertically=is_flipped_vertically,
                quarter_turns=quarter_turns,
            )
        if not alias or "parent" not in alias:
            break
        for key in BOX_DEFAULTS:  # an alias's box takes precedence over its parent's
            if key in alias:
                box_of_aliases.setdefault(key, alias[key])
        # Flips and turns of all aliases add up.
        if alias.get("hFlip"):
            is_flipped_horizontally = not is_flipped_horizontally
        if alias.get("vFlip"):
            is_flipped_vertically = not is_flipped_vertically
        quarter_turns += alias.get("rotate", 0)
        current = alias["parent"]
    raise UserError(
        f"{set_name}: there is no icon '{name}'; correct its name in the catalogue or exclude it "
        "in the dataset's entry."
    )

"""Iconify icon sets: SVG bodies in icons.json, icon names by codepoint in chars.json.

Source: the icon set format of Iconify (IconifyJSON: icons, aliases, default width, height, left and top).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import resvg_py

from rib.base.errors import UserError
from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, decode, refuse_margin

ICONS, CHARS = "package/icons.json", "package/chars.json"
LONGEST_ALIAS_CHAIN = 10


def items(dataset: DatasetSource, *, margin: float) -> Iterator[Item]:
    """Yield one drawing per class in the set, in the order of the label space.

    Args:
        dataset: the npm package; label space keys are codepoints as in chars.json (lower-case hex, joined by `-`);
            `exclude` has codepoints; `icons` maps codepoints to icon names, for a set without a chars.json.
        margin: white on each side, as a fraction of the square's side.

    Raises:
        UserError: a file is missing or invalid, an icon is unknown or can't be rendered, or a setting is out of range.
    """
    refuse_margin(margin, dataset)
    (archive,) = dataset.archives_for("the npm package")
    parts = _parts(archive, dataset)
    names = dataset.icons or parts.get(CHARS, {})
    for label, codepoint in enumerate(dataset.space.keys):
        if codepoint in names and codepoint not in dataset.exclude:
            pixels = render(
                parts[ICONS], names[codepoint], dataset.geometry.size, margin, where=f"{dataset} ({archive.name})"
            )
            source = f"{dataset.source}/{codepoint}"
            yield Item(names[codepoint], label, source, codepoint, pixels)


def _parts(archive: Path, dataset: DatasetSource) -> dict[str, dict]:
    """The JSON files of a package.

    Raises:
        UserError: icons.json is missing, or a file is not in Iconify's format.
    """
    parts = {}
    for name, read in archive_members(archive, {ICONS, CHARS}):
        try:
            parts[name] = json.loads(read())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{dataset}: {archive}, {name} is not valid JSON ({error}); fetch it again.") from error
    if ICONS not in parts:
        raise UserError(f"{archive} has no {ICONS}; it is not an Iconify icon set: correct the entry of {dataset}.")
    forms = {
        ICONS: lambda part: all(isinstance(part.get(key, {}), dict) for key in ("icons", "aliases")) and _fits(part),
        CHARS: lambda part: all(isinstance(name, str) and name.isprintable() for name in part.values()),
    }
    for name, part in parts.items():
        if not isinstance(part, dict) or not forms[name](part):
            raise UserError(f"{dataset}: {archive}, {name} is not in Iconify's icon set format; correct its source.")
    return parts


def render(icon_set: Mapping, name: str, size: int, margin: float, where: str) -> np.ndarray:
    """Draw an icon centred on a white square; its current colour is black.

    Returns:
        (size, size, 3) uint8.

    Raises:
        UserError: the set has no such icon, the icon can't be rendered, or nothing is visible.
    """
    icon, transform = _resolve(icon_set, name, where)
    default = {"width": 16, "height": 16, "left": 0, "top": 0} | {key: icon_set[key] for key in icon_set if key in _BOX}
    width, height, left, top = (icon.get(key, default[key]) for key in _BOX)
    side = max(width, height) / (1 - 2 * margin)
    box = f"{left + (width - side) / 2:.6g} {top + (height - side) / 2:.6g} {side:.6g} {side:.6g}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True
        )
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: the icon '{name}' can't be rendered ({error}); exclude it in the dataset's entry."
        ) from error
    pixels = np.asarray(decode(bytes(png), f"{where}, icon '{name}'"))
    if (pixels == 255).all():
        raise UserError(
            f"{where}: the icon '{name}' can't be rendered (nothing is visible); exclude it in the dataset's entry."
        )
    return np.ascontiguousarray(_transformed(pixels, transform))


_BOX = ("width", "height", "left", "top")
_KINDS = {"body": str, "parent": str, "hFlip": bool, "vFlip": bool, "rotate": int, **dict.fromkeys(_BOX, int | float)}
_FARTHEST = 1e6  # units of a drawing


def _fits(part: object) -> bool:
    """Whether the properties of a set, icon or alias have the types and ranges of Iconify's format."""
    return (
        isinstance(part, dict)
        and all(isinstance(part[key], kind) for key, kind in _KINDS.items() if key in part)
        and all(abs(part[key]) < _FARTHEST for key in _BOX if key in part)
        and all(part[key] > 0 for key in ("width", "height") if key in part)
    )


def _resolve(icon_set: Mapping, name: str, where: str) -> tuple[dict, dict]:
    """Properties and transform of an icon, resolving its chain of aliases."""
    overrides: dict = {}
    flips, rotate, current = {"hFlip": False, "vFlip": False}, 0, name
    for _ in range(LONGEST_ALIAS_CHAIN):
        icon, alias = (icon_set.get(kind, {}).get(current) for kind in ("icons", "aliases"))
        if not all(part is None or _fits(part) for part in (icon, alias)):
            raise UserError(
                f"{where}: the icon '{current}' is not in Iconify's format; exclude it in the dataset's entry."
            )
        if icon and "body" in icon:
            return {**icon, **overrides}, {**flips, "rotate": rotate}
        if not alias or "parent" not in alias:
            break
        overrides = {**{key: alias[key] for key in _BOX if key in alias}, **overrides}
        flips = {key: on != alias.get(key, False) for key, on in flips.items()}
        rotate, current = rotate + alias.get("rotate", 0), alias["parent"]
    raise UserError(
        f"{where}: there is no icon '{name}'; correct its name in the catalogue or exclude it in the dataset's entry."
    )


def _transformed(pixels: np.ndarray, transform: Mapping) -> np.ndarray:
    if transform["hFlip"]:
        pixels = pixels[:, ::-1]
    if transform["vFlip"]:
        pixels = pixels[::-1]
    return np.rot90(pixels, -transform["rotate"] % 4)

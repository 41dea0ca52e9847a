"""Iconify icon sets: SVG bodies in icons.json, icon names by codepoint in chars.json.

Source: the icon set format of Iconify (IconifyJSON: icons, aliases, default width, height, left and top).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from rib.base.errors import UserError
from rib.data.archives import JSON, archive_members
from rib.data.images import DatasetSource, Item, decode, refuse_margin
from rib.data.svg import Draw, renderer

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
    where = f"{dataset} ({archive.name})"
    with renderer() as draw:
        for label, codepoint in enumerate(dataset.space.keys):
            if codepoint in names and codepoint not in dataset.exclude:
                pixels = render(
                    draw, parts[ICONS], names[codepoint], dataset.geometry.size, margin, where
                )
                yield Item(
                    names[codepoint], label, f"{dataset.source}/{codepoint}", codepoint, pixels
                )


def _parts(archive: Path, dataset: DatasetSource) -> dict[str, dict]:
    """The JSON files of a package, of which icons.json is required."""
    parts = {}
    for name, read in archive_members(archive, {ICONS, CHARS}, largest=JSON):
        try:
            parts[name] = json.loads(read())
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{dataset}: {archive}, {name} is not valid JSON ({error}); fetch it again."
            ) from error
    if ICONS not in parts:
        raise UserError(
            f"{archive} has no {ICONS}; it is not an Iconify icon set: correct the entry of {dataset}."
        )
    forms = {
        ICONS: lambda part: (
            all(isinstance(part.get(key, {}), dict) for key in ("icons", "aliases")) and _fits(part)
        ),
        CHARS: lambda part: all(
            isinstance(name, str) and name.isprintable() for name in part.values()
        ),
    }
    for name, part in parts.items():
        if not isinstance(part, dict) or not forms[name](part):
            raise UserError(
                f"{dataset}: {archive}, {name} is not in Iconify's icon set format; correct its source."
            )
    return parts


def render(
    draw: Draw, icon_set: Mapping, name: str, size: int, margin: float, where: str
) -> np.ndarray:
    """Draw an icon centred on a white square, (size, size, 3) uint8; its current colour is black.

    Raises:
        UserError: the set has no such icon, the icon can't be rendered, or nothing is visible.
    """
    icon, steps, quarters = _resolve(icon_set, name, where)
    box = {**_BOX, **icon_set, **icon}
    width, height, left, top = (box[key] for key in _BOX)
    side = max(width, height) / (1 - 2 * margin)
    view = f"{left + (width - side) / 2:.6g} {top + (height - side) / 2:.6g} {side:.6g} {side:.6g}"
    try:
        pixels = np.asarray(decode(draw(icon["body"], view, size), f"{where}, icon '{name}'"))
        if (pixels == 255).all():
            raise ValueError("nothing is visible")
    except ValueError as error:
        raise UserError(
            f"{where}: the icon '{name}' can't be rendered ({error}); exclude it in the dataset's entry."
        ) from error
    return np.ascontiguousarray(
        np.rot90(pixels[:: steps["vFlip"], :: steps["hFlip"]], -quarters % 4)
    )


_BOX = {"width": 16, "height": 16, "left": 0, "top": 0}  # defaults of Iconify's format
_KINDS = {
    "body": str,
    "parent": str,
    "hFlip": bool,
    "vFlip": bool,
    "rotate": int,
    **dict.fromkeys(_BOX, int | float),
}
_FARTHEST = 1e6  # units of a drawing


def _fits(part: object) -> bool:
    """Whether the properties of a set, icon or alias have the types and ranges of Iconify's format."""
    return (
        isinstance(part, dict)
        and all(isinstance(part[key], kind) for key, kind in _KINDS.items() if key in part)
        and all(abs(part[key]) < _FARTHEST for key in _BOX if key in part)
        and all(part[key] > 0 for key in ("width", "height") if key in part)
    )


def _resolve(icon_set: Mapping, name: str, where: str) -> tuple[dict, dict[str, int], int]:
    """Properties of an icon, steps of its flips (1 or -1) and quarter turns, resolving its chain of aliases."""
    overrides: dict = {}
    steps, quarters, current = {"hFlip": 1, "vFlip": 1}, 0, name
    for _ in range(LONGEST_ALIAS_CHAIN):
        icon, alias = (icon_set.get(kind, {}).get(current) for kind in ("icons", "aliases"))
        if not all(part is None or _fits(part) for part in (icon, alias)):
            raise UserError(
                f"{where}: the icon '{current}' is not in Iconify's format; exclude it in the dataset's entry."
            )
        if icon and "body" in icon:
            return {**icon, **overrides}, steps, quarters
        if not alias or "parent" not in alias:
            break
        overrides = {**{key: alias[key] for key in _BOX if key in alias}, **overrides}
        steps = {key: -step if alias.get(key) else step for key, step in steps.items()}
        quarters, current = quarters + alias.get("rotate", 0), alias["parent"]
    raise UserError(
        f"{where}: there is no icon '{name}'; correct its name in the catalogue or exclude it in the dataset's entry."
    )

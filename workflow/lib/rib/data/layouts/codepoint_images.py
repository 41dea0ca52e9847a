"""Packages of encoded pictures named by emoji codepoint, such as assets/1f98a.webp."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, decode, fit_on_white, refuse_margin
from rib.data.layouts._archives import taken
from rib.geometry import Geometry
from rib.io import archive_members

VARIATION_SELECTOR = "fe0f"  # asks for the colourful form of a character; the same drawing with or without


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
    margin: float,
) -> Iterator[Item]:
    """Yield one drawing per class that the package has, in the order of the class space.

    Args:
        archives: the npm package.
        space: its keys are codepoints (lower-case hex, joined by `-`, without variation selectors).
        icons: not used; the files are named by codepoint.
        exclude: codepoints to leave out.
        margin: white on each side, as a share of the square's side.

    Raises:
        UserError: a picture can't be decoded, or a setting is out of bounds.
    """
    refuse_margin(margin, dataset)
    (archive,) = taken(archives, dataset, "the npm package")
    wanted = set(space.keys) - set(exclude)
    found = {}
    for name, read in archive_members(archive):
        codepoint = "-".join(part for part in PurePosixPath(name).stem.lower().split("-") if part != VARIATION_SELECTOR)
        if codepoint in wanted and name.startswith("package/assets/"):
            found[codepoint] = read()
    for label, codepoint in enumerate(space.keys):
        if codepoint in found:
            image = decode(found[codepoint], f"{dataset}, {codepoint} ({archive.name})")
            source = f"{source_group or dataset}/{codepoint}"
            yield Item(codepoint, label, source, codepoint, fit_on_white(image, geometry, margin))

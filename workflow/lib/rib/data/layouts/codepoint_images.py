"""Packages of encoded pictures named by emoji codepoint, such as assets/1f98a.webp."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, decode, fit_on_white, refuse_margin

VARIATION_SELECTOR = "fe0f"  # requests a character's colour form; the drawing is the same
FOLDER = "package/assets/"


def items(dataset: DatasetSource, *, margin: float) -> Iterator[Item]:
    """Yield one drawing per class in the package, in the order of the label space.

    Args:
        dataset: the npm package; label space keys are codepoints (lower-case hex, joined by `-`,
            without variation selectors); `exclude` has codepoints.
        margin: white on each side, as a fraction of the square's side.

    Raises:
        UserError: a picture can't be decoded, or a setting is out of range.
    """
    refuse_margin(margin, dataset)
    (archive,) = dataset.archives_for("the npm package")
    codepoints_to_read = set(dataset.space.keys) - set(dataset.exclude)
    encoded_pictures = {}
    for name, read in archive_members(archive):
        codepoint = _codepoint_of(name)
        if codepoint in codepoints_to_read and name.startswith(FOLDER):
            encoded_pictures[codepoint] = read()
    for label, codepoint in enumerate(dataset.space.keys):
        if codepoint in encoded_pictures:
            image_name = f"{dataset}, {codepoint} ({archive.name})"
            image = decode(encoded_pictures[codepoint], image_name)
            yield Item(
                image_id=codepoint,
                label=label,
                source_id=f"{dataset.source}/{codepoint}",
                object_id=codepoint,
                picture=fit_on_white(image, dataset.drawing_geometry, margin),
                original=image,
            )


def _codepoint_of(name: str) -> str:
    """assets/2600-fe0f.webp gives `2600`; a cook's file gives `1f468-200d-1f373`."""
    characters = PurePosixPath(name).stem.lower().split("-")
    return "-".join(character for character in characters if character != VARIATION_SELECTOR)

"""Packages of encoded pictures named by emoji codepoint, such as assets/1f98a.webp."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, decode, fit_on_white, refuse_margin

VARIATION_SELECTOR = "fe0f"  # requests the colour form of a character; doesn't change the drawing


def items(dataset: DatasetSource, *, margin: float) -> Iterator[Item]:
    """Yield one drawing per class in the package, in the order of the label space.

    Args:
        dataset: the npm package; label space keys are codepoints (lower-case hex, joined by `-`, without variation
            selectors); `exclude` has codepoints.
        margin: white on each side, as a fraction of the square's side.

    Raises:
        UserError: a picture can't be decoded, or a setting is out of range.
    """
    refuse_margin(margin, dataset)
    (archive,) = dataset.archives_for("the npm package")
    wanted = set(dataset.space.keys) - set(dataset.exclude)
    found = {}
    for name, read in archive_members(archive):
        codepoint = "-".join(
            part
            for part in PurePosixPath(name).stem.lower().split("-")
            if part != VARIATION_SELECTOR
        )
        if codepoint in wanted and name.startswith("package/assets/"):
            found[codepoint] = read()
    for label, codepoint in enumerate(dataset.space.keys):
        if codepoint in found:
            image = decode(found[codepoint], f"{dataset}, {codepoint} ({archive.name})")
            source = f"{dataset.source}/{codepoint}"
            pixels = fit_on_white(image, dataset.geometry, margin)
            yield Item(codepoint, label, source, codepoint, pixels, original=image)

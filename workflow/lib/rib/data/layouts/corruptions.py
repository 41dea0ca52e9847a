"""Archives of corrupted photos: .../<corruption>/<severity>/<wnid>/<name>.<ext>, all of it one dataset (ImageNet-C)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, Photo, photo_item
from rib.data.layouts._folders import ENDINGS
from rib.geometry import Geometry
from rib.io import UserError, archive_members


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
    corruptions: list[str],
    severities: list[int],
) -> Iterator[Item]:
    """Yield every image of the given corruptions and severities, in the archives' order.

    Args:
        archives: zip or tar.
        space: its keys are wnids.
        icons: not used.
        exclude: image ids (`<corruption>/<severity>/<wnid>/<name>`) to leave out.
        corruptions: names of folders.
        severities: numbers, 1 to 5.

    Raises:
        UserError: a corruption or severity is not there.
    """
    labels = {wnid: label for label, wnid in enumerate(space.keys)}
    wanted = {(corruption, str(severity)) for corruption in corruptions for severity in severities}
    seen = set()
    for archive in archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            image_id = "/".join(path.parts[-4:])
            subset = path.parts[-4:-2]
            if (
                path.suffix.lower() in ENDINGS
                and subset in wanted
                and path.parent.name in labels
                and image_id not in exclude
            ):
                seen.add(subset)
                photo = Photo(read, f"{dataset}, {name} ({archive.name})")
                source = f"{path.parent.name}/{path.stem}"
                yield photo_item(labels[path.parent.name], image_id, source_group or dataset, source, photo)
    if missing := sorted("/".join(subset) for subset in wanted - seen):
        raise UserError(
            f"{dataset}: its archives hold no {missing[0]} ({len(missing)} of {len(wanted)} subsets are missing); check "
            "corruptions and severities in its entry."
        )

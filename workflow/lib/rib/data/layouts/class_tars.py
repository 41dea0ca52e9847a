"""A tar of tars, one per ImageNet class: <wnid>.tar with <name>.JPEG (ILSVRC2012's training images)."""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, Photo, photo_item
from rib.data.layouts._archives import taken
from rib.data.layouts._folders import ENDINGS, refuse_missing
from rib.geometry import Geometry
from rib.io import archive_members


def items(
    archives: Sequence[Path],
    *,
    space: ClassSpace,
    geometry: Geometry,
    dataset: str,
    source_group: str | None,
    icons: Mapping[str, str],
    exclude: Collection[str],
) -> Iterator[Item]:
    """Yield every image of a class of the space, in the archive's order; a class's tar is held in memory.

    Args:
        archives: the tar.
        space: its keys are wnids.
        icons: not used.
        exclude: image ids (`<wnid>/<name>`) to leave out.

    Raises:
        UserError: a class has no tar.
    """
    (archive,) = taken(archives, dataset, "a tar of tars")
    labels = {wnid: label for label, wnid in enumerate(space.keys)}
    missing = dict(labels)
    for part, read_part in archive_members(archive):
        wnid = PurePosixPath(part).stem
        if wnid not in labels or not part.endswith(".tar"):
            continue
        missing.pop(wnid, None)
        for name, read in archive_members(archive / part, file=io.BytesIO(read_part())):
            path = PurePosixPath(name)
            image_id = f"{wnid}/{path.name}"
            if path.suffix.lower() in ENDINGS and image_id not in exclude:
                photo = Photo(read, f"{dataset}, {name} ({part} in {archive.name})")
                yield photo_item(labels[wnid], image_id, source_group or dataset, f"{wnid}/{path.stem}", photo)
    refuse_missing(missing, len(labels), dataset)

"""Archives of photos in one folder per ImageNet class: .../<wnid>/<name>.<ext>, at any depth."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, decode, resize_and_crop
from rib.geometry import Geometry
from rib.io import archive_members

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


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
    """Yield every image whose folder is a class of the space, in the archives' order.

    Args:
        archives: zip or tar.
        space: its keys are wnids.
        icons: not used.
        exclude: image ids (`<wnid>/<name>`) to leave out.

    Raises:
        UserError: an image can't be decoded.
    """
    labels = {wnid: label for label, wnid in enumerate(space.keys)}
    for archive in archives:
        for name, data in archive_members(archive):
            path = PurePosixPath(name)
            image_id = f"{path.parent.name}/{path.name}"
            if path.suffix.lower() in ENDINGS and path.parent.name in labels and image_id not in exclude:
                source = f"{source_group or dataset}/{path.parent.name}/{path.stem}"
                pixels = resize_and_crop(decode(data, f"{dataset}, {name} ({archive.name})"), geometry)
                yield Item(image_id, labels[path.parent.name], source, source, pixels)

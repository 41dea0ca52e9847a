"""Archives of photos in one folder per ImageNet class, named by the class's index: .../<0 to 999>/<name>.<ext>.

ImageNet-V2 is laid out so. The number counts, not the folder's place in a listing, which sorts 10 before 2.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace, imagenet_wnids
from rib.data.images import Item, decode, resize_and_crop
from rib.data.layouts.wnid_folders import ENDINGS
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
    """Yield every image whose folder is the index of a class of the space, in the archives' order.

    Args:
        archives: zip or tar.
        space: its keys are wnids.
        icons: not used.
        exclude: image ids (`<index>/<name>`) to leave out.

    Raises:
        UserError: an image can't be decoded.
    """
    wnids = imagenet_wnids()
    labels = {str(wnids.index(wnid)): label for label, wnid in enumerate(space.keys)}
    for archive in archives:
        for name, data in archive_members(archive):
            path = PurePosixPath(name)
            image_id = f"{path.parent.name}/{path.name}"
            if path.suffix.lower() in ENDINGS and path.parent.name in labels and image_id not in exclude:
                source = f"{source_group or dataset}/{path.parent.name}/{path.stem}"
                pixels = resize_and_crop(decode(data, f"{dataset}, {name} ({archive.name})"), geometry)
                yield Item(image_id, labels[path.parent.name], source, source, pixels)

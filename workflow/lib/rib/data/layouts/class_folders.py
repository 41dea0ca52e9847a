"""Archives of photos in one folder per class, named by the class's key (a wnid, say): .../<key>/<name>.<ext>.

The folders may lie at any depth.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rib.classes import ClassSpace
from rib.data.images import Item
from rib.data.layouts._folders import photos_in_folders
from rib.geometry import Geometry


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
        space: its keys name the folders.
        icons: not used.
        exclude: image ids (`<key>/<name>`) to leave out.

    Raises:
        UserError: a class has no image.
    """
    labels = {key: label for label, key in enumerate(space.keys)}
    return photos_in_folders(archives, labels, dataset, source_group, exclude)

"""Archives of photos in one folder per class, named by the class's key (a wnid, say): .../<key>/<name>.<ext>.

The folders may lie at any depth. Published archives may hold ImageNet classes that the dataset has not; where classes are a
family's own and the dataset has all of them, photos in a folder of another name are a mistake.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rib.classes import ClassSpace, imagenet_wnids
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
        UserError: a class has no image, or a folder is no class.
    """
    labels = {key: label for label, key in enumerate(space.keys)}
    whole_and_own = len(space.keys) == space.outputs and not labels.keys() <= set(imagenet_wnids())
    return photos_in_folders(archives, labels, dataset, source_group, exclude, strict=whole_and_own)

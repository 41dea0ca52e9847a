"""Archives of photos in one folder per ImageNet class, named by the class's index: .../<0 to 999>/<name>.<ext>.

ImageNet-V2 is laid out so. The number counts, not the folder's place in a listing, which sorts 10 before 2.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rib.classes import ClassSpace, imagenet_wnids
from rib.data.images import Item
from rib.data.layouts._folders import photos_in_folders
from rib.geometry import Geometry
from rib.io import UserError


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
        UserError: a class has no image, or is no wnid.
    """
    wnids = imagenet_wnids()
    for key in space.keys:
        if key not in wnids:
            raise UserError(
                f"{dataset}: its layout is for folders named by ImageNet-1K's indices, and its class {key} is none of these "
                "classes; correct its layout or classes."
            )
    labels = {str(wnids.index(wnid)): label for label, wnid in enumerate(space.keys)}
    return photos_in_folders(archives, labels, dataset, source_group, exclude)

"""Archives of photos in one folder per ImageNet class, named by the class index: .../<0 to 999>/<name>.<ext>.

This is the layout of ImageNet-V2. The label is the number, not the folder's position in a listing, where 10 precedes 2.
"""

from collections.abc import Iterator

from rib.base.errors import UserError
from rib.config.label_space import imagenet_wnids
from rib.data.images import DatasetSource, Item
from rib.data.layouts._folders import photos_in_folders


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield every image of the label space, in archive order.

    Args:
        dataset: zip or tar; label space keys are wnids; `exclude` has image ids (`<index>/<name>`).

    Raises:
        UserError: a class has no image or is not an ImageNet-1K wnid.
    """
    wnids = imagenet_wnids()
    if other := [key for key in dataset.space.keys if key not in wnids]:
        raise UserError(
            f"{dataset}: its layout is for folders named by ImageNet-1K index, but its class {other[0]} is not in "
            "ImageNet-1K; correct its layout or classes."
        )
    return photos_in_folders(
        dataset, {str(wnids.index(wnid)): label for label, wnid in enumerate(dataset.space.keys)}
    )

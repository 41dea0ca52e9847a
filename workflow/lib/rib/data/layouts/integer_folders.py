"""Archives of images in one folder per ImageNet class, .../<0 to 999>/<name>.<ext>, as ImageNet-V2.

The folder's number is the class index, not its position in a listing, where 10 precedes 2.
"""

from collections.abc import Iterator

from rib.base.errors import UserError
from rib.catalog.label_space import imagenet_wnids
from rib.data.images import DatasetSource, Item
from rib.data.layouts._folders import images_in_folders


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield every image of the label space, in archive order.

    Args:
        dataset: zip or tar; label space keys are wnids; `exclude` has image ids (`<index>/<name>`).

    Raises:
        UserError: a class has no image or is not an ImageNet-1K wnid.
    """
    index_of_wnid = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    label_of_folder = {}
    for label, wnid in enumerate(dataset.space.keys):
        if wnid not in index_of_wnid:
            raise UserError(
                f"{dataset}: its layout is for folders named by ImageNet-1K index, but its class "
                f"{wnid} is not in ImageNet-1K; correct its layout or classes."
            )
        label_of_folder[str(index_of_wnid[wnid])] = label
    return images_in_folders(dataset, label_of_folder)

"""Archives of photos in one folder per class, named by the class key: .../<key>/<name>.<ext>.

A key is, for example, a wnid. The folders may be at any depth. Published archives may contain
ImageNet classes that are not in the dataset. If the classes are the family's own and the dataset
has all of them, photos in another folder are an error. Files with endings other than those of
`rib.data.layouts._folders.ENDINGS` are not read; the log counts them.
"""

from collections.abc import Iterator

from rib.config.label_space import imagenet_wnids
from rib.data.images import DatasetSource, Item
from rib.data.layouts._folders import photos_in_folders


def items(
    dataset: DatasetSource, *, partial: bool = False, objects: str | None = None
) -> Iterator[Item]:
    """Yield every image in a folder of the label space, in archive order.

    Args:
        dataset: zip or tar; label space keys are folder names; `exclude` has image ids
            (`<key>/<name>`).
        partial: whether classes may lack images, for a dataset that is scored among more classes
            than it shows.
        objects: which images show one object, so that confidence intervals draw them together:
            `subfolders` (<key>/<object>/<name>), or a CSV file in the archive (columns image, as
            <key>/<name>, and object).

    Raises:
        UserError: a class has no image (unless partial), a folder is not a class, or an image has
            no object.
    """
    keys = dataset.space.keys
    labels = {key: label for label, key in enumerate(keys)}
    has_all_classes = len(keys) == dataset.space.num_classes
    has_classes_of_imagenet_only = set(keys) <= set(imagenet_wnids())
    return photos_in_folders(
        dataset,
        labels,
        strict=has_all_classes and not has_classes_of_imagenet_only,
        partial=partial,
        objects=objects,
    )

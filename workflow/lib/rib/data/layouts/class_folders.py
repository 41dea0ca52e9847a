"""Archives of images in one folder per class, named by the class key: .../<key>/<name>.<ext>.

A key is, for example, a wnid; folders may be at any depth. Files with endings other than
`rib.data.layouts._folders.ENDINGS` are not read; the log counts them.
"""

from collections.abc import Iterator

from rib.catalog.label_space import imagenet_wnids
from rib.data.images import DatasetSource, Item
from rib.data.layouts._folders import images_in_folders


def items(
    dataset: DatasetSource, *, partial: bool = False, objects: str | None = None
) -> Iterator[Item]:
    """Yield every image in the folder of a class, in archive order.

    Images in folders that are no class are left out with a warning. They are an error if the
    network's classes are not ImageNet's, and the dataset has all of them.

    Args:
        dataset: zip or tar; label space keys are folder names; `exclude` has image ids
            (`<key>/<name>`).
        partial: whether classes may lack images, for a dataset scored among more classes than it
            shows.
        objects: which images show one object, for confidence intervals to draw them together:
            `subfolders` (<key>/<object>/<name>), or a CSV file in the archive (columns image, as
            <key>/<name>, and object).

    Raises:
        UserError: a class has no image (unless partial), an image has no object, or a folder is no
            class (see above).
    """
    keys = dataset.space.keys
    labels = {key: label for label, key in enumerate(keys)}
    # A folder that is no class may belong there or be a mistake, such as a misspelt class:
    # - Published archives of ImageNet may contain more classes than the dataset scores.
    # - A dataset may have only some of the network's classes (num_classes), and its archive may
    #   show others.
    # - Otherwise the user's archive has a class that the class file lacks: a mistake.
    are_imagenet_classes = set(keys) <= set(imagenet_wnids())
    are_only_some_classes = len(keys) != dataset.space.num_classes
    may_have_other_folders = are_imagenet_classes or are_only_some_classes
    return images_in_folders(
        dataset,
        labels,
        strict=not may_have_other_folders,
        partial=partial,
        objects=objects,
    )

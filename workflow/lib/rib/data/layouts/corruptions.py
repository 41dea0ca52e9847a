"""Archives of corrupted images as one dataset (ImageNet-C).

Files are .../<corruption>/<severity>/<wnid>/<name>.<ext>.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import PurePosixPath

from rib.base.errors import UserError
from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import Unread


def items(
    dataset: DatasetSource, *, corruptions: list[str], severities: list[int]
) -> Iterator[Item]:
    """Yield every image of the given corruptions and severities (slices) in archive order.

    Args:
        dataset: zip or tar; label space keys are wnids; `exclude` has image ids
            (`<corruption>/<severity>/<wnid>/<name>`).
        corruptions: folder names, such as `fog`.
        severities: 1 to 5.

    Raises:
        UserError: a corruption has no image at a severity.
    """
    labels = {wnid: label for label, wnid in enumerate(dataset.space.keys)}
    severity_texts = [str(severity) for severity in severities]
    subsets = set(product(corruptions, severity_texts))  # such as ("fog", "3")
    subsets_without_images = set(subsets)
    unread = Unread(dataset)
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            if not unread.is_image(path):
                continue
            # The path ends with <corruption>/<severity>/<wnid>/<name>.
            image_id = "/".join(path.parts[-4:])
            subset = path.parts[-4:-2]
            wnid = path.parent.name
            if subset not in subsets or wnid not in labels or image_id in dataset.exclude:
                continue
            subsets_without_images.discard(subset)
            corruption, severity = subset
            photo = Photo(read, f"{dataset}, {name} ({archive.name})")
            yield photo_item(
                labels[wnid],
                image_id,
                dataset.source,
                f"{wnid}/{path.stem}",
                photo,
                corruption=corruption,
                severity=int(severity),
            )
    unread.log()
    if subsets_without_images:
        first_name = min("/".join(subset) for subset in subsets_without_images)
        raise UserError(
            f"{dataset}: its archives contain no {first_name} ({len(subsets_without_images)} of "
            f"{len(subsets)} subsets are missing); check corruptions and severities in its entry."
        )

"""A tar of tars, one per ImageNet class: <wnid>.tar with <name>.JPEG (ILSVRC2012's training images)."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.data.archives import TAR, archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import Unread, refuse_missing


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield every image of the label space, in archive order; raise a UserError if a class has no tar.

    Args:
        dataset: the tar; label space keys are wnids; `exclude` has image ids (`<wnid>/<name>`).
    """
    (archive,) = dataset.archives_for("a tar of tars")
    labels = {wnid: label for label, wnid in enumerate(dataset.space.keys)}
    missing = dict(labels)
    unread = Unread(dataset)
    for part, read_part in archive_members(archive, largest=TAR):
        wnid = PurePosixPath(part).stem
        if wnid not in labels or not part.endswith(".tar"):
            continue
        missing.pop(wnid, None)
        for name, read in archive_members(
            archive / part, file=io.BytesIO(read_part())
        ):  # one tar in memory at a time
            path = PurePosixPath(name)
            image_id = f"{wnid}/{path.name}"
            if unread.is_photo(path) and image_id not in dataset.exclude:
                photo = Photo(read, f"{dataset}, {name} ({part} in {archive.name})")
                yield photo_item(
                    labels[wnid], image_id, dataset.source, f"{wnid}/{path.stem}", photo
                )
    unread.log()
    refuse_missing(missing, len(labels), dataset)

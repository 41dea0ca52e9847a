"""A tar of tars, one per ImageNet class (<wnid>.tar), as for ILSVRC2012's training images."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.data.archives import TAR, archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import Unread, refuse_missing


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield every image of the label space, in archive order.

    Args:
        dataset: the tar; label space keys are wnids; `exclude` has image ids (`<wnid>/<name>`).

    Raises:
        UserError: a class has no tar.
    """
    (archive,) = dataset.archives_for("a tar of tars")
    labels = {wnid: label for label, wnid in enumerate(dataset.space.keys)}
    classes_without_tar = set(labels)
    unread = Unread(dataset)
    for class_tar, read_class_tar in archive_members(archive, largest=TAR):
        wnid = PurePosixPath(class_tar).stem
        if wnid not in labels or not class_tar.endswith(".tar"):
            continue
        classes_without_tar.discard(wnid)
        class_tar_file = io.BytesIO(read_class_tar())  # one tar in memory at a time
        for name, read in archive_members(archive / class_tar, file=class_tar_file):
            path = PurePosixPath(name)
            image_id = f"{wnid}/{path.name}"
            if not unread.is_image(path) or image_id in dataset.exclude:
                continue
            photo = Photo(read, f"{dataset}, {name} ({class_tar} in {archive.name})")
            source = f"{wnid}/{path.stem}"
            yield photo_item(labels[wnid], image_id, dataset.source, source, photo)
    unread.log()
    refuse_missing(classes_without_tar, len(labels), dataset)

"""ILSVRC2012's validation images: a flat archive of photos, with labels in the ImageNet development kit.

The kit has its own class numbers: meta.mat gives the wnid of each number, a text file the number of each image.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from scipy.io import loadmat

from rib.base.errors import UserError
from rib.data.archives import TABLE, archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item

META, LABELS = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def items(dataset: DatasetSource) -> Iterator[Item]:
    """Yield every image of the label space, in archive order; raise a UserError if the kit lacks a file or a label.

    Args:
        dataset: the images and the development kit, in this order; label space keys are wnids; `exclude` has image ids
            (file names).
    """
    images, kit = dataset.archives_for("the images", "the development kit")
    labels = {wnid: label for label, wnid in enumerate(dataset.space.keys)}
    wnids = _wnid_of_each_image(kit, dataset)
    for name, read in archive_members(images):
        path = PurePosixPath(name)
        match = NAME.fullmatch(path.name)
        if match is None or path.name in dataset.exclude:
            continue
        number = int(match[1])
        if not 1 <= number <= len(wnids):
            raise UserError(
                f"{dataset}: {kit.name} has labels for {len(wnids)} images, but {images.name} contains {path.name}."
            )
        if (wnid := wnids[number - 1]) in labels:
            photo = Photo(read, f"{dataset}, {name} ({images.name})")
            yield photo_item(labels[wnid], path.name, dataset.source, f"{wnid}/{path.stem}", photo)


def _wnid_of_each_image(kit: Path, dataset: DatasetSource) -> list[str]:
    """Wnids of the validation images, in the order of their numbers.

    Source: torchvision/datasets/imagenet.py, parse_devkit_archive: only synsets without children count.
    """
    wanted = archive_members(kit, lambda name: name.endswith((META, LABELS)), largest=TABLE)
    parts = {PurePosixPath(name).name: read() for name, read in wanted}
    for part in (META, LABELS):
        if part not in parts:
            raise UserError(
                f"{dataset}: {kit} contains no {part}; it is not the ILSVRC2012 development kit."
            )
    try:
        synsets = loadmat(io.BytesIO(parts[META]), squeeze_me=True)["synsets"]
        rows = zip(
            *(synsets[name] for name in ("ILSVRC2012_ID", "WNID", "num_children")), strict=True
        )
        wnid_of = {int(number): str(wnid) for number, wnid, children in rows if int(children) == 0}
        return [wnid_of[int(number)] for number in parts[LABELS].split()]
    except Exception as error:  # SciPy raises many types of exceptions on invalid files
        raise UserError(
            f"{dataset}: {kit} lacks the tables of the ILSVRC2012 development kit ({type(error).__name__}: {error}); "
            "fetch it again."
        ) from error

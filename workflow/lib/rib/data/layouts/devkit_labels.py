"""ILSVRC2012's validation images: a flat archive, with labels in the development kit.

The kit numbers the classes differently: meta.mat gives the wnid of each number, a text file the
number of each image.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from scipy.io import loadmat

from rib.base.errors import UserError
from rib.catalog.label_space import LabelSpace, imagenet_wnids
from rib.data.archives import TABLE, archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item

META = "meta.mat"
LABELS = "ILSVRC2012_validation_ground_truth.txt"
NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def items(dataset: DatasetSource, *, by_index: bool = False) -> Iterator[Item]:
    """Yield every image of the label space, in archive order.

    Args:
        dataset: the images, then the development kit; label space keys are wnids; `exclude` has
            image ids (file names).
        by_index: whether a class has the images of its ImageNet-1K indices instead; its key is then
            any name, such as `chair` with the indices 423, 559 and 765.

    Raises:
        UserError: the kit lacks a file or a label.
    """
    images, kit = dataset.archives_for("the images", "the development kit")
    if by_index:
        labels = _label_of_wnids_by_index(dataset.space)
    else:
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
                f"{dataset}: {kit.name} has labels for {len(wnids)} images, but {images.name} "
                f"contains {path.name}."
            )
        wnid = wnids[number - 1]
        if wnid in labels:
            photo = Photo(read, f"{dataset}, {name} ({images.name})")
            yield photo_item(labels[wnid], path.name, dataset.source, f"{wnid}/{path.stem}", photo)


def _label_of_wnids_by_index(space: LabelSpace) -> dict[str, int]:
    """Label of each wnid whose index belongs to a class: {"n02791124": 17, ...}."""
    wnids = imagenet_wnids()
    labels = {}
    for label, indices in enumerate(space.indices):
        for index in indices:
            labels[wnids[index]] = label
    return labels


def _wnid_of_each_image(kit: Path, dataset: DatasetSource) -> list[str]:
    """Class of each validation image, ["n01751748", ...] for images 1, 2, ..."""
    # Source: torchvision/datasets/imagenet.py, parse_devkit_archive.
    files = {}
    for name, read in archive_members(kit, _is_table, largest=TABLE):
        files[PurePosixPath(name).name] = read()
    for file_name in (META, LABELS):
        if file_name not in files:
            raise UserError(
                f"{dataset}: {kit} contains no {file_name}; it is not the ILSVRC2012 development "
                "kit."
            )
    try:
        synsets = loadmat(io.BytesIO(files[META]), squeeze_me=True)["synsets"]
        wnid_of_number = {}
        for number, wnid, children in zip(
            synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True
        ):
            # Inner synsets of WordNet are no classes.
            if int(children) == 0:
                wnid_of_number[int(number)] = str(wnid)
        return [wnid_of_number[int(number)] for number in files[LABELS].split()]
    except Exception as error:  # SciPy raises many types of exceptions on invalid files
        raise UserError(
            f"{dataset}: {kit} lacks the tables of the ILSVRC2012 development kit "
            f"({type(error).__name__}: {error}); fetch it again."
        ) from error


def _is_table(name: str) -> bool:
    """Whether a file of the kit is read."""
    return name.endswith((META, LABELS))

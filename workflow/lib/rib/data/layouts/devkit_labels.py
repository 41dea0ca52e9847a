"""A flat archive of photos whose labels are in the ImageNet development kit: ILSVRC2012's validation images.

The kit numbers classes in an order of its own: meta.mat gives each number's wnid, a text file each image's number.
"""

import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from rib.classes import ClassSpace
from rib.data.images import Item, Photo, photo_item
from rib.data.layouts._archives import taken
from rib.geometry import Geometry
from rib.io import UserError, archive_members

META, LABELS = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


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
    """Yield every image of a class of the space, in the archive's order.

    Args:
        archives: the images and the development kit, in this order.
        space: its keys are wnids.
        icons: not used.
        exclude: image ids (file names) to leave out.

    Raises:
        UserError: the kit lacks a part, or there is an image that it has no label for.
    """
    images, kit = taken(archives, dataset, "the images", "the development kit")
    labels = {wnid: label for label, wnid in enumerate(space.keys)}
    wnids = _wnid_of_each_image(kit, dataset)
    for name, read in archive_members(images):
        path = PurePosixPath(name)
        match = NAME.fullmatch(path.name)
        if match is None or path.name in exclude:
            continue
        number = int(match[1])
        if not 1 <= number <= len(wnids):
            raise UserError(
                f"{dataset}: {kit.name} has labels of {len(wnids)} images, but {images.name} holds {path.name}."
            )
        if (wnid := wnids[number - 1]) in labels:
            photo = Photo(read, f"{dataset}, {name} ({images.name})")
            yield photo_item(labels[wnid], path.name, source_group or dataset, f"{wnid}/{path.stem}", photo)


def _wnid_of_each_image(kit: Path, dataset: str) -> list[str]:
    """Wnids of the validation images, in the order of their numbers.

    Source: torchvision/datasets/imagenet.py, parse_devkit_archive: of the synsets those without children count.

    Raises:
        UserError: the kit lacks a table, or one is not as published.
    """
    from scipy.io import loadmat

    wanted = archive_members(kit, lambda name: name.endswith((META, LABELS)))
    parts = {PurePosixPath(name).name: read() for name, read in wanted}
    for part in (META, LABELS):
        if part not in parts:
            raise UserError(f"{dataset}: {kit} holds no {part}; it is not the ILSVRC2012 development kit.")
    try:
        synsets = loadmat(io.BytesIO(parts[META]), squeeze_me=True)["synsets"]
        wnid_of = {
            int(number): str(wnid)
            for number, wnid, children in zip(
                synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True
            )
            if int(children) == 0
        }
        return [wnid_of[int(number)] for number in parts[LABELS].split()]
    except Exception as error:  # over other bytes SciPy raises whatever its parts do
        raise UserError(
            f"{dataset}: {kit} has not the tables of the ILSVRC2012 development kit ({type(error).__name__}: {error}); "
            "fetch it anew."
        ) from error

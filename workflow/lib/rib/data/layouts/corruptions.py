"""Archives of corrupted photos, as one dataset (ImageNet-C): .../<corruption>/<severity>/<wnid>/<name>.<ext>."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from rib.base.errors import UserError
from rib.data.archives import archive_members
from rib.data.images import DatasetSource, Item, Photo, photo_item
from rib.data.layouts._folders import Unread


def items(
    dataset: DatasetSource, *, corruptions: list[str], severities: list[int]
) -> Iterator[Item]:
    """Yield every image of the given corruptions and severities (slices) in archive order; a UserError if one is missing.

    Args:
        dataset: zip or tar; label space keys are wnids; `exclude` has image ids
            (`<corruption>/<severity>/<wnid>/<name>`).
        corruptions: folder names.
        severities: numbers, 1 to 5.
    """
    labels = {wnid: label for label, wnid in enumerate(dataset.space.keys)}
    wanted = {(corruption, str(severity)) for corruption in corruptions for severity in severities}
    seen = set()
    unread = Unread(dataset)
    for archive in dataset.archives:
        for name, read in archive_members(archive):
            path = PurePosixPath(name)
            image_id, subset = "/".join(path.parts[-4:]), path.parts[-4:-2]
            wnid, is_photo = path.parent.name, unread.is_photo(path)
            if is_photo and subset in wanted and wnid in labels and image_id not in dataset.exclude:
                seen.add(subset)
                photo = Photo(read, f"{dataset}, {name} ({archive.name})")
                slices = {"corruption": subset[0], "severity": int(subset[1])}
                yield photo_item(
                    labels[wnid], image_id, dataset.source, f"{wnid}/{path.stem}", photo, **slices
                )
    unread.log()
    if missing := sorted("/".join(subset) for subset in wanted - seen):
        raise UserError(
            f"{dataset}: its archives contain no {missing[0]} ({len(missing)} of {len(wanted)} subsets are missing); "
            "check corruptions and severities in its entry."
        )

"""Archives that a layout takes by their place."""

from collections.abc import Sequence
from pathlib import Path

from rib.io import UserError


def taken(archives: Sequence[Path], dataset: str, *parts: str) -> Sequence[Path]:
    """The archives of a layout that takes so many.

    Args:
        archives: of the dataset.
        dataset: its name.
        parts: what each must be.

    Raises:
        UserError: there are more or fewer.
    """
    if len(archives) != len(parts):
        raise UserError(
            f"{dataset}: its layout takes {len(parts)} of archives ({', then '.join(parts)}), and its entry has "
            f"{len(archives)}; correct its sources or its layout."
        )
    return archives

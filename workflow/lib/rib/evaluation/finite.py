"""Refusal of infinite numbers and NaN, which diverged weights give."""

from torch import Tensor

from rib.base.errors import PermanentError


def refuse_infinite(tensor: Tensor, what: str) -> None:
    """Raise a PermanentError if a value of a tensor is infinite or not a number.

    Args:
        what: name of the values, such as `net/noto/ft/all/0 on emoji: a feature of 'stage1'`.
    """
    if not tensor.isfinite().all():
        raise PermanentError(f"{what} is not finite; don't use these weights.")

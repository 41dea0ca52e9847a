"""One rounding for all numbers that people read: half away from zero.

Tables (CSV) have six decimals. Figures, pages and summaries show one, rounded from these six, as a
reader of the table would round: -9.95 becomes -10.0. Python's `format` gives -9.9, because the
binary number is a little nearer to zero; NumPy and pandas round halves to even digits.
"""

import math
from decimal import ROUND_HALF_UP, Decimal

TABLE_DECIMALS = 6  # in CSV files, as rib.base.files.write_table writes them
MINUS = "\N{MINUS SIGN}"  # for text only: code can't parse it
UNKNOWN = "nan"


def rounded(number: float, decimals: int = 1) -> Decimal:
    """A number rounded half away from zero, from the six decimals of the tables.

    -9.95 becomes -10.0, and -0.01 becomes 0.0, never -0.0.
    """
    in_table = Decimal(f"{number:.{TABLE_DECIMALS}f}")
    step = Decimal(1).scaleb(-decimals)  # 0.1 for one decimal
    rounded_number = in_table.quantize(step, ROUND_HALF_UP)
    return rounded_number + 0  # turns -0.0 into 0.0


def points(difference: float) -> str:
    """A difference in percentage points: `+1.2`, `-10.0`, `+0.0`; `nan` if unknown."""
    if math.isnan(difference):
        return UNKNOWN
    return f"{rounded(difference):+}"


def percent(number: float) -> str:
    """A number in percent with one decimal, such as `98.7`; `nan` if unknown."""
    if math.isnan(number):
        return UNKNOWN
    return f"{rounded(number)}"


def whole_percent(number: float) -> str:
    """A number in percent without decimals, for narrow places: `99`; `nan` if unknown."""
    if math.isnan(number):
        return UNKNOWN
    return f"{rounded(number, 0)}"


def fit_percent(fit: float) -> str:
    """A fit (accuracy on the training images, 0 to 100) with one decimal: `98.7`; empty if unknown.

    Only a fit of 100 is shown as `100.0`, which tells readers that all images are right; 99.97
    becomes `99.9`. A fit just below the threshold may be shown as the threshold, so runs below it
    (underfitted) have a separate mark.
    """
    if math.isnan(fit):
        return ""
    highest = Decimal("100.0") if fit >= 100 else Decimal("99.9")
    return f"{min(rounded(fit), highest)}"

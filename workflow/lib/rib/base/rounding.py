"""Numbers in percent and percentage points as people read them: one rounding for all but CSV files.

Tables (CSV) have six decimals. Figures, pages, summaries, README and model cards show one, rounded
from those six with halves away from zero, as a reader of the table would round: -9.95 is shown as
-10.0. Python's format rounds the binary number, which for -9.95 is a little nearer to zero, to
-9.9; and NumPy and pandas round halves to even digits.

A fit is shown with one decimal, too. One below 100 is never shown as 100.0, which says that all
images are right. It may be shown as the family's threshold if it is just below: the mark of
an underfitted run says so, not the number.
"""

import math
from decimal import ROUND_HALF_UP, Decimal

TABLE_DECIMALS = 6  # of numbers in tables, see rib.base.files.write_table
MINUS = "\N{MINUS SIGN}"  # for text that is read rather than computed with
UNKNOWN = "nan"


def rounded(number: float, decimals: int = 1) -> Decimal:
    """A number rounded half away from zero, from the six decimals that tables have.

    -9.95 becomes -10.0, and -0.01 becomes 0.0, never -0.0.
    """
    in_table = Decimal(f"{number:.{TABLE_DECIMALS}f}")
    step = Decimal(1).scaleb(-decimals)  # 0.1 for one decimal
    rounded_number = in_table.quantize(step, ROUND_HALF_UP)
    return rounded_number + 0  # which turns -0.0 to 0.0


def points(difference: float) -> str:
    """A difference in percentage points with sign and one decimal: `+1.2`, `-10.0`, `+0.0`.

    An unknown one is `nan`.
    """
    if math.isnan(difference):
        return UNKNOWN
    return f"{rounded(difference):+}"


def percent(number: float) -> str:
    """A number in percent with one decimal: `98.7`; `nan` if unknown."""
    if math.isnan(number):
        return UNKNOWN
    return f"{rounded(number)}"


def whole_percent(number: float) -> str:
    """A number in percent where a figure has no room for a decimal: `99`; `nan` if unknown."""
    if math.isnan(number):
        return UNKNOWN
    return f"{rounded(number, 0)}"


def fit_percent(fit: float) -> str:
    """A fit (accuracy on training images, percent) with one decimal, such as `98.7`.

    It is `100.0` only if all images are right, and empty if it is not known.
    """
    if math.isnan(fit):
        return ""
    highest = Decimal("100.0") if fit >= 100 else Decimal("99.9")
    return f"{min(rounded(fit), highest)}"

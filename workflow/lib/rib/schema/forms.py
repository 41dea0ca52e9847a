"""What an algorithm makes: fine-tuned weights, or a merge of other methods' weights."""

from typing import Final

from rib.schema.run import LOADED

FINETUNE: Final = "finetune"
EXTERNAL = "external"
COEFFICIENTS = "coefficients"  # shares of each parent in a merge
CURVE = "curve"
SELECT = "select"
MERGES = (COEFFICIENTS, CURVE, SELECT, *LOADED)

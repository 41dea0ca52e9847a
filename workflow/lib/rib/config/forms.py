"""What an algorithm makes: fine-tuned weights, or a merge of the weights of other methods."""

from typing import Final

from rib.config.run import LOADED

FINETUNE: Final = "finetune"
EXTERNAL = "external"
COEFFICIENTS = "coefficients"  # how much of each parent a merge has
CURVE = "curve"
SELECT = "select"
MERGES = (COEFFICIENTS, CURVE, SELECT, *LOADED)

"""What an algorithm makes: fine-tuned weights, or a merge of the weights of other methods."""

from typing import Final

from rib.config.run import LOADED

FINETUNE: Final = "finetune"
EXTERNAL = "external"
WEIGHTS = "weights"  # how much of the weights of each parent a merge has
CURVE = "curve"
SELECT = "select"
MERGES = (WEIGHTS, CURVE, SELECT, *LOADED)

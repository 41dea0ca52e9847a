"""Layouts of state dicts that training code of others writes.

Facts are from mlfoundations/wise-ft (commit 58b7a4b3) and locuslab/FLYP (commit 215d5bb6):

- wise-ft's ImageClassifier has the encoder `image_encoder`, which has CLIP as `model`, and the
  head `classification_head` (src/models/modeling.py, lines 13 and 65-66). CLIP lacks the
  transformer of its text tower (lines 18-19), but keeps other text tensors and `logit_scale`.
- FLYP's CLIPEncoder has the whole CLIP as `model` (src/models/modeling.py, lines 14-21) and is
  saved without a head (src/models/flyp_loss.py, line 134).
- A zero-shot head is multiplied by the exponential of `logit_scale` when it is made
  (src/models/zeroshot.py, line 53; in FLYP line 61), so logits need no other scale.
- That head divides its inputs by their norm (`normalize=True`: zeroshot.py, line 58; in FLYP line
  66), like rib.models.network.OpenClipClassifier. The state dict doesn't say so.
- Its bias is zero unless training changes it (modeling.py, line 45; in FLYP line 59).
- `module.` is DataParallel's (src/models/finetune.py, line 53); rib.models.weights removes it.
"""

from collections.abc import Mapping

from torch import Tensor

# Keys of a file's dict that may have the state dict, the first that there is.
CONTAINERS = ("state_dict", "model")
# Prefixes of all tensors of a network inside another: wise-ft's and FLYP's.
WRAPPERS = ("image_encoder.model.", "model.")
CLASSIFICATION_HEAD = "classification_head."
# Prefixes of the `weight` and `bias` of a head on an open_clip model's image tower: wise-ft's and
# the workflow's own.
HEADS = (CLASSIFICATION_HEAD, "head.")


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names that the network itself has.

    `image_encoder.model.visual.proj` becomes `visual.proj`; `classification_head.weight` stays. A
    state dict in which other tensors are outside the wrapper is returned as it is.
    """
    for wrapper in WRAPPERS:
        is_wrapped = any(key.startswith(wrapper) for key in state)
        if is_wrapped and all(key.startswith((wrapper, CLASSIFICATION_HEAD)) for key in state):
            return {key.removeprefix(wrapper): tensor for key, tensor in state.items()}
    return dict(state)

"""Facts of a network that is built as others say, in a process with limits.

A configuration of the hub or of a folder can ask for millions of layers. The network is built
without memory for its weights, but each layer takes time and memory all the same.
"""

import json
import os
from collections.abc import Mapping

import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import in_bytes
from rib.base.limited_process import (
    Limits,
    ProcessFailedError,
    TooSlowError,
    answer_requests,
    limited_process,
)
from rib.models.network import NUM_CLASSES, build

# The largest networks of timm take three seconds and 20 MB.
SECONDS = 120  # of processor time
PATIENCE = 600  # seconds, on a machine that does much else
MEMORY = 4 << 30  # bytes besides those of the libraries
REMEDY = "correct its configuration or choose another model"
# Attributes of a self-attention layer in timm and open_clip: projections of its own.
ATTENTION_PROJECTIONS = ("qkv", "q_proj", "out_proj")


def network_facts(library: str, architecture: str, arguments: Mapping) -> dict:
    """Type (`vit` or `cnn`) and number of parameters of a network with a head for ImageNet-1K.

    For errors see rib.models.network.build.
    """
    with torch.device("meta"):
        network = build(library, architecture, NUM_CLASSES, arguments=arguments)
    has_attention = any(_is_self_attention(layer) for layer in network.modules())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"type": "vit" if has_attention else "cnn", "parameters": parameters}


def _is_self_attention(layer: nn.Module) -> bool:
    """Whether a layer is self-attention; attention that only pools features is not."""
    class_name = type(layer).__name__
    if "Attention" not in class_name or "Pool" in class_name:
        return False
    return any(hasattr(layer, projection) for projection in ATTENTION_PROJECTIONS)


def foreign_network_facts(library: str, architecture: str, arguments: Mapping) -> dict:
    """The facts that `network_facts` returns, from a process with limits of time and memory.

    Raises:
        UserError: The network can't be built, or not within the limits.
    """
    request = {"library": library, "architecture": architecture, "arguments": arguments}
    limits = Limits(seconds=SECONDS, patience=PATIENCE, memory=MEMORY)
    try:
        with limited_process(__name__, limits) as ask:
            answer = json.loads(ask(json.dumps(request).encode()))
    except TooSlowError:
        raise UserError(f"building its network took more than {SECONDS} s; {REMEDY}.") from None
    except ProcessFailedError as error:
        raise UserError(f"building its network failed ({error}); {REMEDY}.") from None
    if answer.get("out_of_memory"):
        limit = in_bytes(MEMORY)
        raise UserError(f"building its network took more than {limit} of memory; {REMEDY}.")
    if "problem" in answer:
        raise UserError(answer["problem"])
    return answer


def _answer(request: bytes) -> bytes:
    """The facts of the network that a request describes, or why there are none, as JSON.

    A request is such as {"library": "timm", "architecture": "resnet18", "arguments": {}}; an answer
    has the facts, or `problem`, a sentence for the user, or `out_of_memory`.
    """
    try:
        answer = network_facts(**json.loads(request))
    except UserError as error:
        answer = {"problem": str(error)}
    except MemoryError:
        answer = {"out_of_memory": True}
    except Exception as error:  # of the libraries
        if "alloc" in str(error):  # torch's and C++'s words for it
            answer = {"out_of_memory": True}
        else:
            message = " ".join(str(error).split())[:200]
            answer = {
                "problem": f"its network can't be built ({type(error).__name__}: {message}); "
                f"{REMEDY}."
            }
    return json.dumps(answer).encode()


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched to build a network
    answer_requests(_answer)

"""Facts about a model with which it is converted or pretrained here. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rib.schema.addresses import without_addresses
from rib.schema.fields import stated

if TYPE_CHECKING:
    from rib.grid.grid import Grid

# All that defines a model, without its label and style.
MODEL_FACTS = (
    "name",
    "library",
    "architecture",
    "source",
    "tokenizer",
    "weights",
    "pretrain",
    "preprocessing",
    "pretraining",
    "licence",
)


def model_facts(grid: Grid, model: str) -> dict[str, Any]:
    """Facts of a model on which its weights and its text tower depend.

    For example {"name": "resnet18", "library": "timm", "architecture": "resnet18", "source":
    {"file": "resnet18.tar", "digest": "sha256:..."}, "tokenizer": [], ...}.
    """
    entry = grid.models[model]
    facts: dict[str, Any] = {key: getattr(entry, key) for key in MODEL_FACTS}
    facts["weights"] = stated(entry.weights)
    facts["preprocessing"] = stated(entry.preprocessing)
    facts["arguments"] = model_arguments(grid, model)
    sources = [without_addresses(archive) for archive in entry.archives]
    facts["source"] = sources[0] if sources else None
    facts["tokenizer"] = sources[1:]
    # How published weights were pretrained doesn't matter: results depend on the weights.
    facts["pretrain"] = None if sources else grid.catalog.pretraining(entry)
    return facts


def model_arguments(grid: Grid, model: str) -> dict[str, Any]:
    """Arguments with which timm or open_clip builds the network: {"img_size": 112}.

    They include the input size if the network must be built for it.
    """
    entry = grid.models[model]
    arguments = dict(entry.arguments)
    size = grid.geometry(model).size
    if entry.resized_by and size != entry.preprocessing.input_size:
        arguments[entry.resized_by] = size
    return arguments

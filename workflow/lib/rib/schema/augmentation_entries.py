"""Entries of augmentations: random transforms of pretraining images.

The transforms are classes of torchvision.transforms.v2, each with its arguments.
"""

from typing import Annotated, Any

from pydantic import Field, JsonValue

from rib.schema.fields import Count, Described, Label, Prose, matching

NameOfClass = Annotated[str, matching("[A-Z][A-Za-z0-9]*", 100)]


class AugmentationEntry(Described):
    """Random transforms of the images that a model is pretrained on."""

    DERIVED = frozenset({"name"})

    name: Annotated[str, matching("[a-z0-9_]+", 100)] = Field(
        description="the name of an augmentation: lower-case letters, digits and _"
    )
    label: Label = Field(description="name in texts")
    most: Count = Field(
        description="an image gets none to so many of the transforms, each number as likely; from"
        " 1 to the number of transforms"
    )
    transforms: Annotated[dict[NameOfClass, dict[str, JsonValue]], Field(min_length=1)] = Field(
        description="arguments, by name, of classes of torchvision.transforms.v2, such as "
        "RandomInvert: {p: 1.0}, which get and give images of whole numbers; an interpolation is "
        "named, such as bilinear; torchvision checks arguments when a pretraining starts"
    )
    source: Prose = Field(description="paper or file that defines it")

    @property
    def facts(self) -> dict[str, Any]:
        """Keys that change the images: {"most": 1, "transforms": [["RandomInvert", {"p": 1.0}]]}.

        Transforms are a list, since random draws depend on their order.
        """
        transforms = [[name, arguments] for name, arguments in self.transforms.items()]
        return {"most": self.most, "transforms": transforms}

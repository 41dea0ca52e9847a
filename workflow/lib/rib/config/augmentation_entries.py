"""Entries of augmentations: random transforms of pretraining images.

The transforms are classes of torchvision.transforms.v2, each with its arguments.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rib.config.fields import (
    AsNumber,
    Count,
    Described,
    Label,
    Number,
    Pair,
    Prose,
    Range,
    Share,
    UpToOne,
    Whole,
    at_least_one,
    matching,
    stated,
)

Factor = Annotated[Number, Field(ge=0, le=10)]
Scale = Annotated[Number, Field(gt=0, le=10)]
UpToHundred = Annotated[Number, Field(gt=0, le=100)]
Pixel = Annotated[Whole, Field(ge=0, le=255)]  # its value


class Affine(Described):
    """RandomAffine's arguments."""

    degrees: Annotated[Number, Field(ge=0, le=180)] = Field(
        description="largest turn to either side, in degrees, 0 to 180"
    )
    translate: Pair[UpToOne] | None = Field(
        None,
        description="largest shift to the sides and up or down, as two fractions of the side, 0 "
        "to 1",
    )
    scale: Range[Scale] | None = Field(
        None, description="smallest and largest scale, above 0 to 10"
    )
    shear: Annotated[Number, Field(ge=0, lt=90)] | None = Field(
        None, description="largest shear along the x axis, in degrees, 0 to below 90"
    )
    interpolation: Literal["nearest", "bilinear"] = Field(
        "bilinear", description="nearest or bilinear"
    )
    fill: Pixel = Field(0, description="value of pixels outside of the image, 0 to 255")


class ColourJitter(Described):
    """ColorJitter's arguments, at least one."""

    brightness: Factor | None = Field(
        None,
        description="x, 0 to 10: brightness is multiplied by a factor between 1 - x, or 0, and 1 "
        "+ x",
    )
    contrast: Factor | None = Field(None, description="as brightness, 0 to 10")
    saturation: Factor | None = Field(
        None, description="as brightness, 0 to 10; grey images stay as they are"
    )
    hue: Annotated[Number, Field(ge=0, le=0.5)] | None = Field(
        None, description="largest change of hue, 0 to 0.5; grey images stay as they are"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "ColourJitter":
        """Refuse an entry without any argument."""
        return at_least_one(self, *ColourJitter.model_fields)


class Invert(Described):
    """RandomInvert, which has no argument: `invert: {}`."""


class Posterise(Described):
    """RandomPosterize's arguments."""

    bits: Annotated[Whole, Field(ge=1, le=7)] = Field(
        description="bits of each channel that are kept, 1 to 7"
    )


class Solarise(Described):
    """RandomSolarize's arguments."""

    threshold: Annotated[Number, Field(ge=0, le=255)] = Field(
        description="values from this one on are inverted, 0 to 255"
    )


class Blur(Described):
    """GaussianBlur's arguments."""

    kernel_size: Annotated[
        Literal[3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31], AsNumber
    ] = Field(description="side of the kernel in pixels, an odd number from 3 to 31")
    sigma: Range[UpToHundred] = Field(
        description="smallest and largest standard deviation, in pixels, above 0 to 100"
    )


class Noise(Described):
    """GaussianNoise's arguments."""

    sigma: Share = Field(description="standard deviation, as a fraction of 255, above 0 to 1")


class Erasing(Described):
    """RandomErasing's arguments."""

    scale: Range[Share] = Field(
        description="smallest and largest fraction of the area that is erased, above 0 to 1"
    )
    ratio: Range[UpToHundred] = Field(
        description="smallest and largest ratio of the rectangle's sides, above 0 to 100"
    )
    value: Pixel = Field(0, description="value of the erased pixels, 0 to 255")


class Perspective(Described):
    """RandomPerspective's arguments."""

    distortion_scale: Share = Field(
        description="how far corners move, as a fraction of half a side, above 0 to 1"
    )
    interpolation: Literal["nearest", "bilinear"] = Field(
        "bilinear", description="nearest or bilinear"
    )
    fill: Pixel = Field(0, description="value of pixels outside of the image, 0 to 255")


class Transforms(Described):
    """Transforms of torchvision.transforms.v2, with the arguments of their classes."""

    affine: Affine | None = Field(None, description="RandomAffine's arguments by name")
    colour_jitter: ColourJitter | None = Field(
        None, description="ColorJitter's arguments by name, at least one"
    )
    invert: Invert | None = Field(None, description="{}: RandomInvert has no argument")
    posterise: Posterise | None = Field(None, description="RandomPosterize's arguments by name")
    solarise: Solarise | None = Field(None, description="RandomSolarize's arguments by name")
    blur: Blur | None = Field(None, description="GaussianBlur's arguments by name")
    noise: Noise | None = Field(None, description="GaussianNoise's arguments by name")
    erasing: Erasing | None = Field(None, description="RandomErasing's arguments by name")
    perspective: Perspective | None = Field(
        None, description="RandomPerspective's arguments by name"
    )

    @model_validator(mode="after")
    def _has_one(self) -> "Transforms":
        """Refuse an entry without any transform."""
        return at_least_one(self, *Transforms.model_fields)


class Augmentation(Described):
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
    transforms: Transforms = Field(
        description="transforms of torchvision.transforms.v2 by name, with the arguments of their"
        " classes"
    )
    source: Prose = Field(description="paper or file that defines it")

    @property
    def facts(self) -> dict[str, Any]:
        """Keys that change the images: {"most": 1, "transforms": {"noise": {"sigma": 0.1}}}."""
        return {"most": self.most, "transforms": stated(self.transforms)}

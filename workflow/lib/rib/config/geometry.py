"""Input geometry of a model. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """How an image is resized and cropped to the input of a model.

    In mode `center` the shorter side is resized; in mode `squash` both sides are, so that the
    aspect ratio changes.
    """

    size: int  # side of the input in pixels
    crop_pct: float  # fraction that the centre crop keeps
    interpolation: str
    crop_mode: str = "center"

    @property
    def key(self) -> str:
        """Name of the geometry in paths, for example `112px-bicubic-crop0.875`."""
        name = f"{self.size}px-{self.interpolation}-crop{self.crop_pct:g}"
        if self.crop_mode != "center":
            name += f"-{self.crop_mode}"
        return name

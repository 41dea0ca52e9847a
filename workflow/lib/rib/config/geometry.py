"""Input geometry of a model. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Input side in pixels, fraction kept by the centre crop, interpolation, and what is resized.

    In mode `center` the shorter side is resized; in mode `squash` both sides are, so that the aspect ratio changes.
    """

    size: int
    crop_pct: float
    interpolation: str
    crop_mode: str = "center"

    @property
    def key(self) -> str:
        """Name of the geometry in paths, for example `112px-bicubic-crop0.875`."""
        squash = "" if self.crop_mode == "center" else f"-{self.crop_mode}"
        return f"{self.size}px-{self.interpolation}-crop{self.crop_pct:g}{squash}"

"""Input geometry of a model. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Input side in pixels, fraction kept by the centre crop, and interpolation."""

    size: int
    crop_pct: float
    interpolation: str

    @property
    def key(self) -> str:
        """Name of the geometry in paths, for example `112px-bicubic-crop0.875`."""
        return f"{self.size}px-{self.interpolation}-crop{self.crop_pct:g}"

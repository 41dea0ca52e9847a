"""Input geometry of a model. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """How images are brought to a model's input: side in pixels, share kept by the centre crop, interpolation."""

    size: int
    crop: float
    interpolation: str

    @property
    def key(self) -> str:
        """Name of the geometry in paths, for example `112px-bicubic-crop0.875`."""
        return f"{self.size}px-{self.interpolation}-crop{self.crop:g}"

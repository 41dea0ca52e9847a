"""Input geometry of a model. No torch."""

from collections.abc import Collection
from dataclasses import dataclass, replace


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

    def without_crop(self) -> "Geometry":
        """The geometry that cuts no margin off: of a photo that is square, all is seen.

        Of other photos the largest square in the centre is seen.
        """
        return replace(self, crop_pct=1.0)


def geometry_of(
    dataset: str, geometry: Geometry | None, uncropped: Collection[str]
) -> Geometry | None:
    """The geometry with which a dataset is read.

    Args:
        dataset: its name.
        geometry: that of the model; None for jobs that read no pixels.
        uncropped: names of the datasets of which models see whole photos.
    """
    if geometry is not None and dataset in uncropped:
        return geometry.without_crop()
    return geometry

"""Input geometry of a model. No torch."""

from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Geometry:
    """How an image is resized and cropped to a model's input.

    Mode `center` resizes the shorter side. Mode `squash` resizes both, which changes the aspect
    ratio.
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
        """The geometry that cuts no margin off.

        A square image is seen whole, any other image as the largest square in its centre.
        """
        return replace(self, crop_pct=1.0)


def geometry_of(
    dataset: str, geometry: Geometry | None, uncropped: Collection[str]
) -> Geometry | None:
    """The geometry for reading a dataset.

    Args:
        dataset: its name.
        geometry: the model's; None for jobs that read no pixels.
        uncropped: names of datasets that are read without crop.
    """
    if geometry is not None and dataset in uncropped:
        return geometry.without_crop()
    return geometry

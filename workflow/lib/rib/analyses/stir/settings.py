"""Settings of the job that computes STIR. No pandas: rules import this module."""

from rib.statistics.settings import TableSettings


class StirSettings(TableSettings):
    """How representations were inverted, and how sure STIR is."""

    layer: str  # whose representations were inverted
    steps: int  # descent steps of each inversion
    confidence: float  # coverage of intervals, 0 to 1

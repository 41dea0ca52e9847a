"""Settings of the job that tabulates results by numbers of images. No pandas: rules import it."""

from rib.statistics.settings import TableSettings


class SizeSettings(TableSettings):
    """What is known of the models besides the tables (rib.analyses.sizes.tables)."""

    # Numbers of pretraining images that entries of models state, by model.
    pretraining_images: dict[str, int]

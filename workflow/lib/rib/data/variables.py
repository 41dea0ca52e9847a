"""Environment variables that pass machine-dependent settings to jobs.

They are no parameters of rules, because changing them must not run a job again.
"""

import os
from collections.abc import Mapping
from typing import Any

ARCHIVES = "RIB_ARCHIVES"  # folders with downloaded archives, separated as in PATH
# Largest number of images left out per dataset; the manifest lists them.
CORRUPT_IMAGES = "RIB_CORRUPT_IMAGES"
PHOTO_MEGABYTES = "RIB_PHOTO_MEGABYTES"  # limit of an image
PHOTO_MEGAPIXELS = "RIB_PHOTO_MEGAPIXELS"  # limit of an image
ARCHIVE_RATIO = "RIB_ARCHIVE_RATIO"  # bytes that one byte of an archive may unpack to
# Defaults outside Snakemake.
DEFAULTS = {PHOTO_MEGABYTES: 256, PHOTO_MEGAPIXELS: 100, ARCHIVE_RATIO: 100}


def set_from(config: Mapping[str, Any]) -> None:
    """Set the variables, which jobs inherit, from config.yaml: {"archives": "/data", ...}."""
    folders = config["archives"]  # a path or a list of paths
    if folders:
        os.environ[ARCHIVES] = folders if isinstance(folders, str) else os.pathsep.join(folders)
    os.environ[CORRUPT_IMAGES] = str(config["corrupt_images"])
    limits = config["limits"]
    os.environ[PHOTO_MEGABYTES] = str(limits["photo_megabytes"])
    os.environ[PHOTO_MEGAPIXELS] = str(limits["photo_megapixels"])
    os.environ[ARCHIVE_RATIO] = str(limits["archive_ratio"])


def limit(variable: str) -> int:
    """A limit in the unit of config.yaml, such as 256 (megabytes)."""
    return int(os.environ.get(variable, DEFAULTS[variable]))


def photo_limit(variable: str) -> int:
    """Most bytes or pixels of an image."""
    return limit(variable) * 10**6

"""Datasets and models of the catalogue, fetched and prepared as their jobs do."""

from pathlib import Path

from rib.config.catalog import Catalog
from rib.config.geometry import Geometry
from rib.data.download import download
from rib.data.images import DatasetSource
from rib.data.prepare import prepare
from tiny.project import ROOT

CATALOG = Catalog([ROOT / "workflow/catalog"])
FILES = {
    "images": "images.npy",
    "index": "index.parquet",
    "classes": "classes.json",
    "manifest": "manifest.json",
}


def fetched(entry, folder: Path) -> Path:
    """An entry's archive: the project's own download where it has one, else fetched into a folder."""
    path = ROOT / "data/raw" / entry.name / entry.sources[0]["file"]
    if not path.is_file():
        path = folder / entry.sources[0]["file"]
        if not path.is_file():
            download(entry.sources[0], path, entry.name)
    return path


def made(name: str, folder: Path, archive: Path, side: int) -> Path:
    """A dataset prepared in a new folder."""
    entry = CATALOG.datasets[name]
    folder.mkdir(parents=True)
    space, geometry = CATALOG.label_space(entry), Geometry(side, 1.0, "bicubic")
    more = (entry.source_group, CATALOG.icons(entry), sorted(entry.exclude))
    prepare(
        dataset=DatasetSource(name, [archive], space, geometry, *more),
        digests=[entry.sources[0]["digest"]],
        layout=CATALOG.layout_file(entry.layout),
        settings=entry.settings,
        storage=entry.storage,
        classes_per_dataset=CATALOG.families[entry.family].classes_per_dataset,
        expected=entry.images,
        about=entry.about_images,
        corrupt_allowed=0,
        workers=1,
        **{part: folder / file for part, file in FILES.items()},
    )
    return folder

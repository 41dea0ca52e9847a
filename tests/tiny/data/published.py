"""Datasets and models of the catalogue, fetched and prepared as their jobs do."""

from pathlib import Path

from rib.catalog.catalog import Catalog
from rib.data.data_settings import PreparationSettings
from rib.data.fetch.download import download
from rib.data.prepare import prepare
from rib.schema.geometry import Geometry
from tiny.data.photos import prepared_files
from tiny.projects.project import ROOT

CATALOG = Catalog([ROOT / "workflow/catalog"])


def fetched(entry, folder: Path) -> Path:
    """Path of an entry's archive.

    It is the project's own download where it has one, else it is fetched into a folder.
    """
    path = ROOT / "data/raw" / entry.name / entry.archives[0]["file"]
    if not path.is_file():
        path = folder / entry.archives[0]["file"]
        if not path.is_file():
            download(entry.archives[0], path, entry.name)
    return path


def made(name: str, folder: Path, archives: Path | list[Path], side: int) -> Path:
    """Prepare a dataset of the catalogue in a new folder; gives the folder.

    Args:
        archives: the archive of the dataset, as `fetched` gives it, or all of them.
        side: of the prepared images in pixels.
    """
    entry = CATALOG.datasets[name]
    folder.mkdir(parents=True)
    photos_layout = CATALOG.photos_layout_file(entry)
    prepare(
        name=name,
        archives=archives if isinstance(archives, list) else [archives],
        settings=PreparationSettings(
            digests=tuple(source["digest"] for source in entry.archives),
            layout=str(CATALOG.layout_file(entry.layout)),
            photos_layout=str(photos_layout) if photos_layout else None,
            settings=entry.settings,
            source_group=entry.source_group,
            icons=CATALOG.icons(entry),
            exclude=sorted(entry.exclude),
            only=CATALOG.only(entry),
            space=CATALOG.label_space(entry),
            classes_per_dataset=CATALOG.families[entry.family].classes_per_dataset,
            storage=entry.storage,
            geometry=Geometry(side, 1.0, "bicubic"),
            expected=entry.images,
            about=entry.about_images,
            code="of no rule",
        ),
        corrupt_allowed=0,
        decode_workers=1,
        **prepared_files(folder),
    )
    return folder

"""Publishing what was made of a grid: copies in a folder of reports/, all of one grid."""

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from rib.base.progress import log
from rib.records import provenance
from rib.report.settings import PublicationSettings


def publish(
    files: Sequence[Path], copies: Mapping[str, Path], settings: PublicationSettings
) -> None:
    """Copy files of a grid, and remove from the folder what was published there of other grids.

    Args:
        files: what is published, below `settings.source`.
        copies: where to write the copy of each file, by the file's path in `settings.source`.
        settings: the folders.
    """
    for file in files:
        name = str(file.relative_to(settings.source))
        shutil.copyfile(file, copies[name])
    _remove_old_page_record(settings.folder)
    remove_other_grids(
        folders=[settings.folder / "tables", settings.folder / "figures"],
        published={settings.folder / name for name in copies},
        grids=settings.grids,
    )


def remove_other_grids(folders: Iterable[Path], published: Collection[Path], grids: Path) -> None:
    """Remove files of earlier publications from folders, except those that are published now.

    A file is of an earlier publication if some grid has a file with the same name, or if a
    provenance record beside it lists it: earlier versions of the workflow wrote results and records
    here. All other files stay, and are named in the log.

    Args:
        folders: folders below reports/; their subfolders are not searched.
        published: paths of the files that are published now.
        grids: folder with the folders of all grids.
    """
    file_names_of_grids = {path.name for path in grids.rglob("*") if path.is_file()}
    for folder in folders:
        _remove_earlier_files(folder, published, file_names_of_grids)


def _remove_earlier_files(
    folder: Path, published: Collection[Path], file_names_of_grids: Collection[str]
) -> None:
    """Remove files of earlier publications from one folder, see `remove_other_grids`."""
    records = sorted(folder.glob(f"*{provenance.ENDING}"))
    recorded_files = _outputs_of(records)
    for path in _published_files(folder):
        if path in published:
            continue
        is_result = path.name in file_names_of_grids or path in recorded_files
        if is_result or path in records:
            path.unlink()
        else:
            log.warning("%s is of no grid of this project and stays where it is", path)


def _outputs_of(records: Iterable[Path]) -> set[Path]:
    """Files that records name as outputs of their jobs."""
    outputs: set[Path] = set()
    for path in records:
        record = provenance.read(path)
        if record:
            outputs.update(Path(file) for file in record["outputs"])
    return outputs


def _published_files(folder: Path) -> list[Path]:
    """Files in a folder that may have been published; those of DVC never are."""
    return [path for path in sorted(folder.glob("*")) if path.is_file() and path.suffix != ".dvc"]


def _remove_old_page_record(folder: Path) -> None:
    """Remove the record of a page that a job of an earlier version wrote to the folder itself."""
    (folder / f"index.{provenance.ENDING}").unlink(missing_ok=True)

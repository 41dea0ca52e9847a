"""Publishing what was made of a grid: copies in a folder of reports/, where all files are of one grid."""

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rib.base.progress import log
from rib.records import provenance


def publish(
    *, files: Sequence[Path], source: str, folder: str, grids: str, outputs: Mapping[str, Path]
) -> None:
    """Copy files of a grid, and remove from the folder what was published there of other grids.

    Args:
        files: what is published, below `source`.
        source: folder with what was made of the grid.
        folder: where the outputs will be.
        grids: folder with the folders of all grids, of which `source` is one.
        outputs: where to write the copy of each file, by its path in `source`.
    """
    for file in files:
        shutil.copyfile(file, outputs[str(file.relative_to(source))])
    published = {Path(folder) / name for name in outputs}
    _remove_old_page(Path(folder))
    remove_other_grids(
        [Path(folder) / part for part in ("tables", "figures")], published, Path(grids)
    )


def remove_other_grids(folders: Iterable[Path], published: Collection[Path], grids: Path) -> None:
    """Remove files of earlier publications from folders, save those that are published now.

    A file is of an earlier publication if some grid has one of its name, or a record beside it names it, since earlier
    versions wrote results and their records here. Other files stay, and are named in the log.
    """
    names_of_grids = {path.name for path in grids.rglob("*") if path.is_file()}
    for folder in folders:
        _remove_from(folder, published, names_of_grids)


def _remove_from(
    folder: Path, published: Collection[Path], names_of_grids: Collection[str]
) -> None:
    records = sorted(folder.glob(f"*{provenance.ENDING}"))
    recorded = {Path(file) for path in records for file in _outputs_of(path)}
    for path in _files_in(folder):
        if path in published:
            continue
        if path.name in names_of_grids or path in recorded or path in records:
            path.unlink()
        else:
            log.warning("%s is of no grid of this project and stays where it is", path)


def _remove_old_page(folder: Path) -> None:
    """Remove the record of a page that a job of an earlier version wrote to the folder itself."""
    (folder / f"index.{provenance.ENDING}").unlink(missing_ok=True)


def _files_in(folder: Path) -> Iterator[Path]:
    """Files that may have been published; not those of DVC."""
    for path in sorted(folder.glob("*")):
        if path.is_file() and path.suffix != ".dvc":
            yield path


def _outputs_of(record: Path) -> Iterable[str]:
    contents = provenance.read(record)
    return contents["outputs"] if contents else ()

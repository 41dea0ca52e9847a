"""The figures and tables of a run that stand for those of the paper, with a list of them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.base.files import write_text
from rib.base.text import markdown
from rib.report.publication import remove_other_grids
from rib.report.settings import PaperRow, PaperSettings

FAMILY_OF_PAPER = "imagenet"


def write_paper(
    files: Sequence[Path], copies: Mapping[str, Path], readme: Path, settings: PaperSettings
) -> None:
    """Copy the files, list them by what they stand for, and remove those of other grids.

    Args:
        files: figures and tables of this run.
        copies: where to write the copy of each file, by its name.
        readme: the list to write.
        settings: what the files stand for.
    """
    for file in files:
        shutil.copyfile(file, copies[file.name])
    write_text(readme, _list_of_files(settings))
    remove_other_grids(
        folders=[settings.folder],
        published={settings.folder / file.name for file in files},
        grids=settings.grids,
    )


def _list_of_files(settings: PaperSettings) -> str:
    """A page in Markdown that says which files stand for what of the paper."""
    introduction = (
        "Figures and tables of the paper (arXiv 2410.21582) as this run of the family "
        f"{settings.title} has them."
    )
    if settings.family != FAMILY_OF_PAPER:
        introduction += (
            f" **The family is a stand-in for ImageNet-RIB's datasets.** {settings.limits or ''}"
        )
    table = ["| of the paper | shows | files | state |", "|---|---|---|---|"]
    table += [_line(row, settings.files[row.of_paper]) for row in settings.rows]
    conditions = f"Numbers depend on: {'; '.join(settings.conditions)}."
    paragraphs = [
        "# The paper's figures and tables",
        introduction,
        conditions,
        "\n".join(table),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _line(row: PaperRow, files: Sequence[str]) -> str:
    """A line of the table, with links to the files beside it."""
    links = ", ".join(f"[{name}]({name})" for name in files) or "not made by this run"
    of_paper = markdown(row.of_paper)
    return f"| {of_paper} | {markdown(row.shows)} | {links} | {markdown(row.state)} |"

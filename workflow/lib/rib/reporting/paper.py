"""The figures and tables of a run that stand for those of the paper, in one folder with a list of them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.base.files import write_text
from rib.base.text import markdown
from rib.reporting.publication import remove_other_grids

PAPERS = "imagenet"  # the family of the paper


def write_paper(
    *,
    files: Sequence[Path],
    parts: Sequence[Mapping[str, str]],
    made: Mapping[str, Sequence[str]],
    family: Mapping[str, str],
    conditions: Sequence[str],
    folder: str,
    grids: str,
    outputs: Mapping[str, Path],
) -> None:
    """Copy the files, and list them by what they stand for.

    Args:
        parts: rows of paper_map.csv: of_paper, shows, tables, state.
        made: file names by `of_paper`; without figures if the run draws none of this kind.
        family: name, title and limits.
        folder: where the outputs will be.
        grids: folder with the folders of all grids (rib.reporting.publication).
        outputs: `readme`, and a path for each file by its name.
    """
    for path in files:
        shutil.copyfile(path, outputs[path.name])
    stands = f"Figures and tables of the paper (arXiv 2410.21582) as this run of the family {family['title']} has them."
    if family["name"] != PAPERS:
        stands += (
            f" **The family is a stand-in for ImageNet-RIB's datasets.** {family['limits'] or ''}"
        )
    rows = ["| of the paper | shows | files | state |", "|---|---|---|---|"]
    for row in parts:
        links = ", ".join(f"[{name}]({name})" for name in made[row["of_paper"]])
        part, shows, state = (markdown(row[key]) for key in ("of_paper", "shows", "state"))
        rows.append(f"| {part} | {shows} | {links or 'not made by this run'} | {state} |")
    depend = f"Numbers depend on: {'; '.join(conditions)}."
    text = "\n\n".join(["# The paper's figures and tables", stands, depend, "\n".join(rows)])
    write_text(outputs["readme"], text + "\n")
    published = {Path(folder) / path.name for path in files}
    remove_other_grids([Path(folder)], published, Path(grids))

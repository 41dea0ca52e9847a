"""Counterparts in a run of the paper's figures and tables."""

from collections.abc import Sequence
from pathlib import Path

from rib.base.text import markdown
from rib.report.report_settings import PaperRow, PaperSettings

FAMILY_OF_PAPER = "imagenet"


def paper_list(settings: PaperSettings) -> str:
    """A Markdown page that lists this run's counterparts of the paper's figures and tables."""
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
    """`| figure 1 | mean accuracy | [cost.png](figures/cost.png) | the same means |`."""
    links = ", ".join(f"[{Path(link).name}]({link})" for link in files) or "not made by this run"
    of_paper = markdown(row.of_paper)
    return f"| {of_paper} | {markdown(row.shows)} | {links} | {markdown(row.state)} |"

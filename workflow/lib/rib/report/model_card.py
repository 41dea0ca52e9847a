"""The model card of an exported run. No torch."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from rib.base.files import write_text
from rib.base.rounding import fit_percent, percent, points
from rib.base.text import markdown
from rib.config.model_names import licence_terms
from rib.config.run import PRETRAINED, Run, parent_of
from rib.records import provenance
from rib.report.settings import CardDescription


@dataclass(frozen=True)
class CardFiles:
    """Files that a model card is made of."""

    accuracy: Path  # tables, CSV files
    ri: Path
    records: Sequence[Path]  # provenance records of the jobs that made the weights
    template: Path
    citation: Path  # CITATION.cff


@dataclass(frozen=True)
class CardNetwork:
    """The network that a model card is of."""

    run: Run
    # By checkpoint, of an average; or the names of what is merged on loading.
    weights: Mapping[str, float] | Iterable[str]
    facts: Mapping[str, Any]  # model.json of the pretrained model
    preprocessing: Mapping[str, Any]


def write_card(network: CardNetwork, about: CardDescription, files: CardFiles, card: Path) -> None:
    """Write a model card.

    Args:
        network: what the card is of.
        about: the choices of the run.
        files: tables, records and templates.
        card: Markdown file to write.
    """
    merged_methods = [
        parent_of(checkpoint)["method"]
        for checkpoint in network.weights
        if checkpoint != PRETRAINED
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(files.template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown
    environment.filters["licence_terms"] = licence_terms
    environment.filters["points"] = points
    environment.filters["percent"] = percent
    environment.filters["fit_percent"] = fit_percent
    records = [provenance.read(path) for path in files.records]
    text = environment.get_template(files.template.name).render(
        run=network.run,
        weights=network.weights,
        facts=network.facts,
        shown=network.preprocessing,
        about=about,
        parts=list(dict.fromkeys([network.run.method, *merged_methods])),
        accuracy=_rows(files.accuracy),
        ri=_rows(files.ri),
        cite=yaml.safe_load(files.citation.read_text(encoding="utf-8")),
        records=[record for record in records if record],
    )
    write_text(card, text + "\n")


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows of a CSV file, as texts by column."""
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))

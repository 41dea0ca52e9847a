"""The model card of an exported run. No torch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from rib.base.files import read_json, write_text
from rib.base.rounding import fit_percent, percent, points
from rib.base.text import markdown
from rib.catalog.model_names import licence_terms
from rib.models.merge import Mixture
from rib.records import provenance
from rib.report.report_settings import ExportSettings
from rib.schema.run import PRETRAINED, Run, parent_of


def write_card(
    *,
    run: Run,
    mixture: Mixture,
    model: Path,
    preprocessing: Mapping[str, Any],
    settings: ExportSettings,
    accuracy: Path,
    ri: Path,
    records: Sequence[Path],
    template: Path,
    citation: Path,
    card: Path,
) -> None:
    """Write the model card of an exported run: weights, accuracies, RI, licences, jobs.

    Args:
        run: whose network is exported.
        mixture: coefficients of the weights, such as {"pretrained": 0.5, "ft": 0.5}.
        model: model.json of the pretrained model.
        preprocessing: of the network's images, such as {"size": 224, ...}.
        accuracy, ri: CSV files with the tables of the run and the pretrained model.
        records: provenance records of the jobs that made the weights.
        template: Jinja template of the card.
        citation: CITATION.cff.
        card: Markdown file that is written.
    """
    merged_methods = [
        parent_of(checkpoint)["method"] for checkpoint in mixture if checkpoint != PRETRAINED
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown
    environment.filters["licence_terms"] = licence_terms
    environment.filters["points"] = points
    environment.filters["percent"] = percent
    environment.filters["fit_percent"] = fit_percent
    records_of_jobs = [provenance.read(path) for path in records]
    text = environment.get_template(template.name).render(
        run=run,
        mixture=mixture,
        facts=read_json(model),
        shown=preprocessing,
        about=settings,
        parts=list(dict.fromkeys([run.method, *merged_methods])),
        accuracy=_rows(accuracy),
        ri=_rows(ri),
        cite=yaml.safe_load(citation.read_text(encoding="utf-8")),
        records=[record for record in records_of_jobs if record],
    )
    write_text(card, text + "\n")


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows of a CSV file for the template: [{"model": "net", "ri": "1.2"}]."""
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))

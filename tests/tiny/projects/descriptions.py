"""Descriptions of grids, of which a test states only what it is about."""

from collections.abc import Mapping

from rib.base.params import from_params
from rib.report.report_settings import ExportSettings, GridDescription

CONFIG = {"protocol": "paper", "seeds": [0], "statistics": {"confidence": 0.95, "seed": 3}}
GRID = {
    "config": CONFIG,
    "config_file": {**CONFIG, "catalog": []},
    "targets": ["a"],
    "ood": ["a", "b"],
    "sizes": ["all"],
    "shown_size": "all",
    "conditions": ["protocol paper"],
    "accuracy_on_target": "fit of the training images",
    "fit_threshold": 0.95,
    "source_groups": {},
    "sharing_targets": [],
}
VIEW = {"geometry": None, "budget": "all", "images_per_class": None}
# What the model card of an export does not say.
EXPORT = {
    "view": VIEW,
    "evaluation_batch_size": 4,
    "compute": {"device": "cpu", "threads_per_job": 1},
    "code": "of no rule",
    "published": {},
    "label_names": None,
    "metrics": {
        "conditions": "",
        "code": "of no rule",
        "ri": {
            "ood_datasets": [],
            "source_groups": {},
            "replicates": 100,
            "confidence": 0.95,
            "seed": 0,
        },
        "fit": {"can_fit": [], "threshold": None, "whole_targets": True, "other_rates": {}},
        "in_distribution": [],
        "view": VIEW,
        "excludes_proxy": [],
        "split": [],
    },
    "tables": [],
}
DATASET = {"label": "A", "licence": "MIT", "origin": "here"}
ENTRIES = {
    "datasets": DATASET,
    "read": {**DATASET, "publishable": True, "tuning": None},
    "models": {
        "label": "Net",
        "architecture": "n",
        "pretraining": "IN-1K",
        "licence": "MIT",
        "record": None,
    },
    "methods": {
        "label": "full fine-tuning",
        "settings": {},
        "source": "somewhere",
        "can_fit": True,
        "reference": "no",
    },
    "sweeps": {"label": "sweep", "variants": []},
}


def description(about: Mapping) -> GridDescription:
    """The description of a grid that has what is given, and for all else something usual."""
    return from_params(GridDescription, {**GRID, **_completed(about)})


def export_settings(about: Mapping) -> ExportSettings:
    """Settings of an export whose card has what is given, and for its entries something usual."""
    completed = _completed(about)
    del completed["sweeps"]
    return from_params(ExportSettings, {**EXPORT, **completed})


def _completed(about: Mapping) -> dict:
    """What is given, with usual values of the family and of each entry."""
    family = {"title": "Toys", "description": "drawn twice", "limits": None}
    completed = {**about, "family": {**family, **about.get("family", {})}}
    for kind, usual in ENTRIES.items():
        entries = about.get(kind, {})
        completed[kind] = {name: {**usual, **entry} for name, entry in entries.items()}
    return completed

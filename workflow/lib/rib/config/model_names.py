"""Models by name: timm/NAME, open_clip/ARCHITECTURE/TAG, hf-hub:OWNER/NAME and local-dir:FOLDER. No torch.

A name is resolved once, with the installed library, the hub or the folder. What was found, with the hub's commit, is
kept in a lock file that git tracks, so that later runs need neither the network nor the library.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.base.locks import locked
from rib.base.plugins import LIBRARY
from rib.base.progress import print_lines
from rib.config.entries import Model
from rib.config.model_arguments import check_arguments
from rib.config.schema import validated
from rib.config.values import show

LOCK = Path("models.lock.json")
RECORDS = Path("work/model_records")  # of the libraries, by version
FORM = re.compile(r"(timm|open_clip)/([^\x00-\x1f]+)|(hf-hub|local-dir):([^\x00-\x1f]+)")
IN_PATHS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
)  # Okabe and Ito's
MARKERS = "osD^vPX*phH8<>d"
# Licences that forbid commercial use, besides those that say so (-nc-, noncommercial).
RESEARCH_ONLY = (" apple amlr ", " seer license ", " fastvit license ", " cvnets license ")


@dataclass(frozen=True)
class Name:
    """A model's name: its kind, such as `timm`, and the rest of it."""

    text: str
    kind: str
    rest: str

    @property
    def short(self) -> str:
        """The name in paths: the rest with points for slashes and @; of a folder, its last part.

        Raises:
            UserError: It has other characters than a path may have here.
        """
        last = (
            Path(self.rest).resolve().name
            if self.kind == "local-dir"
            else re.sub("[/@]", ".", self.rest)
        )
        if not IN_PATHS.fullmatch(last):
            raise UserError(
                f"config, models: '{last}' of {show(self.text)} can't be a folder's name here; use at most 100 letters, "
                "digits, _, . and -, starting with a letter, digit or _."
            )
        return last


def parse_name(text: str) -> Name:
    """Parse a model's name; raise a UserError if it has none of the four forms."""
    if not (match := FORM.fullmatch(text)):
        forms = "timm/NAME, open_clip/ARCHITECTURE/TAG, hf-hub:OWNER/NAME or local-dir:FOLDER"
        raise UserError(
            f"config, models: {show(text)} is not a model's name; write {forms}, or one of the catalogue."
        )
    return Name(text, *filter(None, match.groups()))


def read_lock(path: Path) -> dict[str, dict]:
    """Facts by name, empty without the file; raise a UserError if it is damaged."""
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or not all(isinstance(facts, dict) for facts in found.values()):
        raise UserError(
            f"{path} does not map names to facts; restore it with git, or delete it to resolve all names again."
        )
    return found


def resolve(names: Iterable[str]) -> dict[str, dict]:
    """Find out the facts of names that the lock file lacks, if there are any, and add them to it.

    Raises:
        UserError: A name doesn't exist or can't be used, or the hub can't be asked; the lock file is then unchanged.
    """
    if not (names := sorted(set(names))):
        return {}
    shown = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    print_lines(f"Resolving {shown} into {LOCK} (once)", file=sys.stderr)
    RECORDS.mkdir(parents=True, exist_ok=True)
    with locked(RECORDS / "lock"), tempfile.TemporaryDirectory() as folder:  # one process at a time
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "rib.models.records", str(found), *names]
        environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            explained = said.startswith("config, models")
            raise UserError(said if explained else f"config, models: {shown} not resolved: {said}")
        facts = read_json(found)
        for name, record in facts.items():
            validated_models(
                {parse_name(name).short: entry_of(name, record)}, f"config, models, {name}"
            )
        write_json(LOCK, read_lock(LOCK) | facts)
    return facts


def entry_of(name: str, facts: Mapping) -> dict:
    """A catalogue entry of a resolved name; its label is the name in paths."""
    tag = (
        name.rpartition("/")[2].partition(".")[2]
        if name.startswith("timm/")
        else name.rpartition("/")[2]
    )
    return {
        "families": [],
        "label": parse_name(name).short,
        "pretraining": tag if tag and name.startswith(("timm/", "open_clip/")) else "not stated",
        **facts,
    }


def validated_models(entries: object, where: str) -> dict[str, dict]:
    """Entries of models, checked and with defaults filled in; `where` is their file.

    Raises:
        UserError: An entry doesn't fit the schema, or has an argument that may load something.
    """
    filled = validated(entries, "models", where)
    for name, entry in filled.items():
        check_arguments(entry["library"], entry["arguments"], f"{where}, {name}")
    return filled


def with_styles(models: Mapping[str, Model]) -> dict[str, Model]:
    """Models with a colour and a marker that no other one has, for those without a style."""
    taken = {
        (model.style["colour"], model.style["marker"]) for model in models.values() if model.style
    }
    pairs = [*itertools.product(MARKERS, COLOURS)]
    free = itertools.chain(
        (pair for pair in pairs if pair[::-1] not in taken), itertools.cycle(pairs)
    )
    return {
        name: model
        if model.style
        else replace(model, style=dict(zip(("marker", "colour"), next(free), strict=True)))
        for name, model in models.items()
    }


def licence_terms(licence: str) -> list[str]:
    """What a licence asks for, by its identifier or text: `share-alike`, `non-commercial`, or `not stated`."""
    words = f" {re.sub('[^a-z0-9.]+', ' ', licence.lower())} "
    asked = {
        "share-alike": (" sa ", " share alike ", " sharealike "),
        "non-commercial": (
            " nc ",
            " non commercial ",
            " noncommercial ",
            " imagenet ",
            *RESEARCH_ONLY,
        ),
        "not stated": (" not stated ", " unknown ", " none "),
    }
    return [term for term, signs in asked.items() if any(sign in words for sign in signs)]


def terms(models: Iterable[Model]) -> list[str]:
    """Sentences on models that are gated or whose licence forbids commercial use."""
    found = []
    for model in models:
        if model.gated:
            found.append(
                f"model '{model.name}' is gated: accept the terms of {model.source['repo']} on its page of the hub and log in (HF_TOKEN)"
            )
        if "non-commercial" in licence_terms(model.licence):
            found.append(
                f"model '{model.name}' is licensed for non-commercial use only ({model.licence})"
            )
    return found

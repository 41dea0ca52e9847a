"""Models by name: timm/NAME, open_clip/ARCHITECTURE/TAG, hf-hub:OWNER/NAME and local-dir:FOLDER.

`rib lock` resolves a name once, with the installed library, the hub or the folder, and keeps the
model's facts in the lock file (rib.catalog.hub_names). No torch.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rib.base.appearance import MODEL_COLOURS
from rib.base.errors import UserError
from rib.base.params import replaced
from rib.schema.checking import checked
from rib.schema.entries import Model, Style
from rib.schema.messages import show
from rib.schema.model_arguments import check_arguments

FORM = re.compile(r"(timm|open_clip)/([^\x00-\x1f]+)|(hf-hub|local-dir):([^\x00-\x1f]+)")
IN_PATHS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
MARKERS = "osD^vPX*phH8<>d"
# Words in licences that show their terms.
SHARE_ALIKE = (" sa ", " share alike ", " sharealike ")
NON_COMMERCIAL = (" nc ", " non commercial ", " noncommercial ", " imagenet ")
# Licences that forbid commercial use without using these words.
RESEARCH_ONLY = (" apple amlr ", " seer license ", " fastvit license ", " cvnets license ")
SIGNS_OF_TERMS = {
    "share-alike": SHARE_ALIKE,
    "non-commercial": (*NON_COMMERCIAL, *RESEARCH_ONLY),
    "not stated": (" not stated ", " unknown ", " none "),
}


@dataclass(frozen=True)
class Name:
    """A model's name, such as timm/resnet18, with kind `timm` and rest `resnet18`."""

    text: str
    kind: str
    rest: str

    @property
    def short(self) -> str:
        """The name in paths: `rest` with points for slashes and @, or a folder's last part.

        Raises:
            UserError: It has characters that paths must not have here.
        """
        if self.kind == "local-dir":
            short = Path(self.rest).resolve().name
        else:
            short = re.sub("[/@]", ".", self.rest)
        if not IN_PATHS.fullmatch(short):
            raise UserError(
                f"config, models: '{short}' of {show(self.text)} can't be a folder's name here; "
                "use at most 100 letters, digits, _, . and -, starting with a letter, digit or _."
            )
        return short


def parse_name(text: str) -> Name:
    """Parse a model's name, such as `timm/resnet18`; a UserError if it has none of the forms."""
    match = FORM.fullmatch(text)
    if match is None:
        forms = "timm/NAME, open_clip/ARCHITECTURE/TAG, hf-hub:OWNER/NAME or local-dir:FOLDER"
        raise UserError(
            f"config, models: {show(text)} is not a model's name; write {forms}, or one of the "
            "catalogue."
        )
    # Either the first two groups match (`timm/resnet18`) or the last two (`hf-hub:timm/resnet18`).
    library, name_in_library, source, name_in_source = match.groups()
    if library is not None:
        return Name(text, kind=library, rest=name_in_library)
    return Name(text, kind=source, rest=name_in_source)


def entry_of(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a catalogue entry for a model: {"label": "resnet18", "library": "timm", ...}.

    Args:
        name: as the library or the hub have it, such as timm/resnet18.
        facts: of the lock file, such as {"library": "timm", ...}; they override the defaults here.
    """
    return {
        "families": [],
        "label": parse_name(name).short,
        "pretraining": _pretraining_tag(name) or "not stated",
        **facts,
    }


def _pretraining_tag(name: str) -> str:
    """`a1_in1k` for `timm/resnet18.a1_in1k`, `openai` for `open_clip/ViT-B-32/openai`."""
    _, _, after_last_slash = name.rpartition("/")
    if name.startswith("timm/"):
        _, _, tag = after_last_slash.partition(".")
        return tag
    if name.startswith("open_clip/"):
        return after_last_slash
    return ""


def checked_model(name: str, entry: object, where: str) -> Model:
    """The model of an entry, which may be made by the code; `where` names its file.

    Raises:
        UserError: It has a wrong key, or an argument that may load something.
    """
    model = checked(Model, entry, where, name, [name])
    check_arguments(model.library, model.arguments, f"{where}, {name}")
    return model


def with_styles(models: Mapping[str, Model]) -> dict[str, Model]:
    """Models by name, in their order; one without a style gets an unused colour and marker."""
    styles = _free_styles(models)
    styled_models = {}
    for name, model in models.items():
        if model.style:
            styled_models[name] = model
        else:
            styled_models[name] = replaced(model, style=next(styles))
    return styled_models


def _free_styles(models: Mapping[str, Model]) -> Iterator[Style]:
    """Yield pairs that no model has, then all pairs again and again, without end."""
    styles_of_models = [model.style for model in models.values() if model.style]
    pairs_of_models = {(style.marker, style.colour) for style in styles_of_models}
    all_pairs = list(itertools.product(MARKERS, MODEL_COLOURS))
    free_pairs = [pair for pair in all_pairs if pair not in pairs_of_models]
    for marker, colour in itertools.chain(free_pairs, itertools.cycle(all_pairs)):
        yield Style(marker=marker, colour=colour)


def licence_terms(licence: str) -> list[str]:
    """Terms of a licence: a list of `share-alike`, `non-commercial` and `not stated`.

    `CC-BY-NC-SA-4.0` gives the first two.
    """
    # Blanks around each word, such as ` cc by nc sa 4.0 `: a sign like ` nc ` matches whole words.
    words = f" {re.sub('[^a-z0-9.]+', ' ', licence.lower())} "
    terms_of_licence = []
    for term, signs in SIGNS_OF_TERMS.items():
        if any(sign in words for sign in signs):
            terms_of_licence.append(term)
    return terms_of_licence


def terms(models: Iterable[Model]) -> list[str]:
    """Sentences on models that are gated or whose licence forbids commercial use."""
    sentences = []
    for model in models:
        if model.gated and model.source is not None:
            sentences.append(
                f"model '{model.name}' is gated: accept the terms of {model.archives[0]['repo']} "
                "on its page of the hub and log in (HF_TOKEN)"
            )
        if "non-commercial" in licence_terms(model.licence):
            sentences.append(
                f"model '{model.name}' is licensed for non-commercial use only ({model.licence})"
            )
    return sentences

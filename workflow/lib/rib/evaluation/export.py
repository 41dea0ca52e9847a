"""Export of a run in its library's format, with a model card.

Others use it without this project.
"""

import csv
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import jinja2
import safetensors.torch
import timm
import torch
import yaml
from torch import nn

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk, write_text
from rib.base.rounding import fit_percent, percent, points
from rib.base.text import markdown
from rib.config.geometry import Geometry
from rib.config.model_names import licence_terms
from rib.config.run import PRETRAINED, parent_of
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.evaluation.settings import ExportSettings
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.network import OpenClipClassifier, load
from rib.models.weights import read_state, with_weights
from rib.records import provenance

CHECKED = 8  # images of the target for which the library must give the same logits
CPU = torch.device("cpu")
# What timm records of an architecture rather than of published weights.
FACTS_OF_ARCHITECTURE = (
    "architecture",
    "input_size",
    "fixed_input_size",
    "num_classes",
    "first_conv",
    "classifier",
)


@dataclass(frozen=True)
class ExportInputs:
    """Files of an export, besides those of the network and its images."""

    archive: Path | None  # for open_clip, the published weights, with the text tower
    accuracy: Path  # CSV tables of metrics
    ri: Path
    records: Sequence[Path]  # provenance records of the jobs that made the weights
    card_template: Path  # Jinja template, whose folder has those that it includes
    citation: Path  # CITATION.cff


@dataclass(frozen=True)
class ExportOutput:
    """Files that an export writes; those of weights and configuration have the library's names."""

    weights: Path
    config: Path  # beside the weights
    card: Path
    # for open_clip: weight (C, d) and bias (C,) for unit-norm features
    head: Path | None = None


def export_run(
    *, source: RunOnDataset, inputs: ExportInputs, settings: ExportSettings, output: ExportOutput
) -> None:
    """Write a run's network, with merged weights, as its library opens a folder, and a model card.

    The libraries open it by timm's or open_clip's create_model.

    Args:
        source: the run on its target.

    Raises:
        UserError: the run has a padding prompt, the disk is too full, or the library gives other
            logits.
    """
    model, facts = load(source.model_folder, CPU)
    model = apply(model, source.weights, source.checkpoints)
    model = model.to(memory_format=torch.contiguous_format)
    if not hasattr(model, "get_classifier"):
        raise UserError(f"{source}: a padding prompt can't be exported; choose another method.")
    images = source.images(CHECKED)
    preprocessing = _preprocessing_of_export(facts, source.view.geometry)
    if facts["library"] == "open_clip":
        assert inputs.archive is not None
        published_model = _published_open_clip_model(inputs.archive, settings.published, facts)
        opened = _export_to_open_clip(model, published_model, facts, preprocessing, output)
    else:
        opened = _export_to_timm(model, settings.label_names, preprocessing, output.weights.parent)
    pixels = Inputs.of(images, preprocessing, CPU)[:]
    with torch.inference_mode():
        gives_same_logits = torch.equal(model(pixels), opened.eval()(pixels))
    if not gives_same_logits:
        raise UserError(
            f"{source}: {facts['library']} gives other logits for the export; don't use it."
        )
    card = _model_card(source, facts, preprocessing, inputs, settings.about)
    write_text(output.card, card + "\n")


def _preprocessing_of_export(facts: Mapping, geometry: Geometry) -> dict:
    """How images are prepared for the network, under the names of both libraries.

    Args:
        facts: of the model, with its mean and std.
        geometry: at which this run sees images.
    """
    return {
        **facts["preprocessing"],
        **vars(geometry),
        "input_size": (3, geometry.size, geometry.size),
    }


def _export_to_timm(
    model: nn.Module, label_names: Sequence[str] | None, preprocessing: Mapping, folder: Path
) -> nn.Module:
    """Write a network as timm does, and open it again by timm."""
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    refuse_full_disk(folder, size, "an export")
    record = {}
    for key, fact in model.pretrained_cfg.items():
        if key in FACTS_OF_ARCHITECTURE:
            record[key] = fact
    model.pretrained_cfg = record
    names = None if label_names is None else list(label_names)
    timm.models.save_for_hf(
        model, folder, {"label_names": names}, safe_serialization=True, data_config=preprocessing
    )
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _published_open_clip_model(archive: Path, published: Mapping, facts: Mapping) -> nn.Module:
    """The model of open_clip with published weights, the text tower among them.

    Args:
        published: `weights` of the model's catalogue entry.
        facts: of the model.
    """
    state = read_state(archive, published.get("member"), facts["name"])
    return with_weights(
        state,
        library=facts["library"],
        architecture=facts["architecture"],
        arguments=facts["arguments"],
        keys=published["keys"],
        name=facts["name"],
    )


def _export_to_open_clip(
    model: nn.Module,
    published_model: nn.Module,
    facts: Mapping,
    preprocessing: Mapping,
    output: ExportOutput,
) -> nn.Module:
    """Write a network as open_clip does, with a file of its head, and open it again by open_clip.

    Args:
        model: the run's image tower and head.
        published_model: whose image tower becomes that of the run.
    """
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    published_model.visual.load_state_dict(model.visual.state_dict())
    tensors = {name: tensor.contiguous() for name, tensor in published_model.state_dict().items()}
    folder = output.weights.parent
    size = sum(tensor.nbytes for tensor in tensors.values())
    refuse_full_disk(folder, size, "an export")
    config = facts["arguments"].get("model_cfg")
    if not config:
        config = open_clip.get_model_config(facts["architecture"])
    config = deepcopy(config)
    config["vision_cfg"]["image_size"] = preprocessing["size"]
    resize_mode = "squash" if preprocessing["crop_mode"] == "squash" else "shortest"
    open_clip.model.set_model_preprocess_cfg(
        published_model, {**preprocessing, "resize_mode": resize_mode}
    )
    save_config_for_hf(published_model, output.config, config)
    safetensors.torch.save_file(tensors, output.weights)
    assert output.head is not None
    safetensors.torch.save_file(model.head.state_dict(), output.head)
    opened = open_clip.create_model(f"local-dir:{folder}")
    classifier = OpenClipClassifier(opened.visual, model.head.in_features, model.head.out_features)
    classifier.head.load_state_dict(safetensors.torch.load_file(output.head))
    return classifier


def _model_card(
    source: RunOnDataset,
    facts: Mapping,
    preprocessing: Mapping,
    inputs: ExportInputs,
    about: Mapping,
) -> str:
    """The model card of a run.

    Args:
        facts: of the pretrained model.
        about: see ExportSettings.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(inputs.card_template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        markdown=markdown,
        licence_terms=licence_terms,
        points=points,
        percent=percent,
        fit_percent=fit_percent,
    )
    methods_of_run = [source.run.method]
    for key in source.weights:
        if key != PRETRAINED:
            methods_of_run.append(parent_of(key)["method"])
    records = []
    for path in inputs.records:
        record = provenance.read(path)
        if record:
            records.append(record)
    return environment.get_template(inputs.card_template.name).render(
        run=source.run,
        weights=source.weights,
        facts=facts,
        preprocessing=preprocessing,
        about=about,
        methods_of_run=list(dict.fromkeys(methods_of_run)),
        accuracy=_lines_of_table(inputs.accuracy),
        ri=_lines_of_table(inputs.ri),
        cite=yaml.safe_load(inputs.citation.read_text(encoding="utf-8")),
        records=records,
    )


def _lines_of_table(table: Path) -> list[dict[str, str]]:
    """Lines of a CSV table, as texts by column."""
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))

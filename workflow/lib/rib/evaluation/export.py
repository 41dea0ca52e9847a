"""Export of a run in its library's format, with a model card.

Others use it without this project.
"""

import csv
from collections.abc import Mapping, Sequence
from copy import deepcopy
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
from rib.config.model_names import licence_terms
from rib.config.run import PRETRAINED, parent_of
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.network import OpenClipClassifier, load
from rib.models.weights import read_state, with_weights
from rib.records import provenance

CHECKED = 8  # images of the target for which the library must give the same logits
CPU = torch.device("cpu")
# What timm records of an architecture rather than of published weights.
KEPT = ("architecture", "input_size", "fixed_input_size", "num_classes", "first_conv", "classifier")


def export_run(
    *,
    source: RunOnDataset,
    archive: Path,
    published: Mapping,
    label_names: Sequence[str] | None,
    tables: Sequence[Path],
    records: Sequence[Path],
    templates: Sequence[Path],
    citation: Path,
    about: Mapping,
    outputs: Mapping[str, Path],
) -> None:
    """Write a run's network, with merged weights, as its library opens a folder, and a model card.

    The libraries open it by timm's or open_clip's create_model.

    Args:
        source: the run on its target.
        archive, published: for open_clip, the published weights with the text tower, and `weights`
            of the entry.
        label_names: of the network's outputs; None for ImageNet's.
        tables: CSV files of the metrics accuracy and ri.
        records: provenance records of the jobs that made the weights.
        templates: Jinja templates, the first of which is that of the card.
        about: see rib.reporting.page.write_page.
        outputs: `weights`, `config`, `card`; for open_clip also `head`, weight (C, d) and bias (C,)
            for unit-norm features.

    Raises:
        UserError: the run has a padding prompt, the disk is too full, or the library gives other
            logits.
    """
    model, facts = load(source.model_folder, CPU)
    model = apply(model, source.weights, source.checkpoints).to(
        memory_format=torch.contiguous_format
    )
    if not hasattr(model, "get_classifier"):
        raise UserError(f"{source}: a padding prompt can't be exported; choose another method.")
    geometry, images = source.view.geometry, source.images(CHECKED)
    shown = {
        **facts["preprocessing"],
        **vars(geometry),
        "input_size": (3, geometry.size, geometry.size),
    }
    if facts["library"] == "open_clip":
        state = read_state(archive, published.get("member"), facts["name"])
        of = (
            facts["library"],
            facts["architecture"],
            facts["arguments"],
            published["keys"],
            facts["name"],
        )
        found = _as_open_clip(model, with_weights(state, *of), facts, shown, outputs)
    else:
        found = _as_timm(model, {"label_names": label_names}, shown, outputs["weights"].parent)
    inputs = Inputs.of(images, shown, CPU)[:]
    with torch.inference_mode():
        if not torch.equal(model(inputs), found.eval()(inputs)):
            raise UserError(
                f"{source}: {facts['library']} gives other logits for the export; don't use it."
            )
    merged = [parent_of(key)["method"] for key in source.weights if key != PRETRAINED]
    accuracy, ri = (
        list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in tables
    )
    options = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(templates[0].parent), **options)
    environment.filters |= {"markdown": markdown, "licence_terms": licence_terms}
    environment.filters |= {"points": points, "percent": percent, "fit_percent": fit_percent}
    card = environment.get_template(templates[0].name).render(
        **{
            "run": source.run,
            "weights": source.weights,
            "facts": facts,
            "shown": shown,
            "about": about,
        },
        parts=list(dict.fromkeys([source.run.method, *merged])),
        **{
            "accuracy": accuracy,
            "ri": ri,
            "cite": yaml.safe_load(citation.read_text(encoding="utf-8")),
        },
        records=[record for record in map(provenance.read, records) if record],
    )
    write_text(outputs["card"], card + "\n")


def _as_timm(model: nn.Module, names: Mapping, shown: Mapping, folder: Path) -> nn.Module:
    refuse_full_disk(
        folder, sum(tensor.nbytes for tensor in model.state_dict().values()), "an export"
    )
    model.pretrained_cfg = {
        key: value for key, value in model.pretrained_cfg.items() if key in KEPT
    }
    timm.models.save_for_hf(model, folder, names, safe_serialization=True, data_config=shown)
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _as_open_clip(
    model: nn.Module, whole: nn.Module, facts: Mapping, shown: Mapping, outputs: Mapping
) -> nn.Module:
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    whole.visual.load_state_dict(model.visual.state_dict())
    tensors = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    refuse_full_disk(
        outputs["weights"].parent, sum(tensor.nbytes for tensor in tensors.values()), "an export"
    )
    config = deepcopy(
        facts["arguments"].get("model_cfg") or open_clip.get_model_config(facts["architecture"])
    )
    config["vision_cfg"]["image_size"] = shown["size"]
    resize_mode = "squash" if shown["crop_mode"] == "squash" else "shortest"
    open_clip.model.set_model_preprocess_cfg(whole, {**shown, "resize_mode": resize_mode})
    save_config_for_hf(whole, outputs["config"], config)
    safetensors.torch.save_file(tensors, outputs["weights"])
    safetensors.torch.save_file(model.head.state_dict(), outputs["head"])
    opened = open_clip.create_model(f"local-dir:{outputs['weights'].parent}")
    found = OpenClipClassifier(opened.visual, model.head.in_features, model.head.out_features)
    found.head.load_state_dict(safetensors.torch.load_file(outputs["head"]))
    return found

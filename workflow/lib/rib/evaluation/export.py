"""Export of a run's network in its library's format.

Others use it without this project.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
import timm
import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.models.checkpoint import apply
from rib.models.images import Images
from rib.models.network import Classifier, OpenClipClassifier, load
from rib.models.weights import read_state, with_weights

CHECKED = 8  # images of the target for which the library must give the same logits
CPU = torch.device("cpu")
# What timm records of an architecture rather than of published weights.
KEPT = ("architecture", "input_size", "fixed_input_size", "num_classes", "first_conv", "classifier")


@dataclass(frozen=True)
class PublishedModel:
    """Parts of an export that are those of the published model: the run's network has none."""

    archive: Path | None = None  # of open_clip: published weights, with the text tower
    weights: Mapping | None = None  # of open_clip: `weights` of the model's entry
    label_names: Sequence[str] | None = None  # of the outputs; None for ImageNet's


@dataclass(frozen=True)
class ExportFiles:
    """Where an export is written, in one folder."""

    weights: Path
    config: Path
    # Of open_clip: weight (C, d) and bias (C,) of the classifier, for unit-norm features.
    head: Path | None = None


@dataclass(frozen=True)
class ExportedNetwork:
    """What a model card says of an exported network."""

    facts: Mapping  # model.json of the pretrained model
    preprocessing: Mapping  # of the images of the run


def export_network(
    source: RunOnDataset, published: PublishedModel, files: ExportFiles
) -> ExportedNetwork:
    """Write a run's network to files that its library opens.

    The library opens them by timm's or open_clip's create_model. The weights are those of plain
    layers: what a method trains beside a layer, as LoRA does, is added to the layer's weights.

    Args:
        source: the run on its target.
        published: parts of the export that are taken from the published model.
        files: paths of the files that are written.

    Raises:
        UserError: the run has a padding prompt, the disk is too full, or the library gives other
            logits.
    """
    pretrained, facts = load(source.model_folder, CPU)
    network = apply(pretrained, source.weights, source.checkpoints)
    # torch's types lack memory_format.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if not hasattr(network, "get_classifier"):
        raise UserError(f"{source}: a padding prompt can't be exported; choose another method.")
    model = cast(Classifier, network)
    geometry = source.view.geometry
    assert geometry is not None  # of a dataset whose pixels are read
    preprocessing = {
        **facts["preprocessing"],
        **vars(geometry),
        "input_size": (3, geometry.size, geometry.size),
    }
    if isinstance(model, OpenClipClassifier):
        exported = _export_to_open_clip(model, facts, preprocessing, published, files)
    else:
        label_names = {"label_names": published.label_names}
        exported = _export_to_timm(model, label_names, preprocessing, files.weights.parent)
    _refuse_other_logits(source, model, exported.eval(), preprocessing, facts["library"])
    return ExportedNetwork(facts=facts, preprocessing=preprocessing)


def _refuse_other_logits(
    source: RunOnDataset,
    model: nn.Module,
    exported: nn.Module,
    preprocessing: Mapping,
    library: str,
) -> None:
    """Raise a UserError if the exported network gives other logits for images of the target."""
    inputs = Images(source.images(CHECKED), preprocessing, CPU)[:]
    with torch.inference_mode():
        is_same = torch.equal(model(inputs), exported(inputs))
    if not is_same:
        raise UserError(f"{source}: {library} gives other logits for the export; don't use it.")


def _export_to_timm(
    model: Classifier, label_names: dict, preprocessing: dict, folder: Path
) -> nn.Module:
    """Write a network for timm into a folder, and return the network that timm opens there.

    Args:
        label_names: the names of the outputs, as {"label_names": names}.
        preprocessing: of images, as in the catalogue, which timm writes too.
    """
    refuse_full_disk(folder, _bytes_of(model.state_dict()), "an export")
    # Without what timm records of the published weights.
    model.pretrained_cfg = {key: fact for key, fact in model.pretrained_cfg.items() if key in KEPT}
    timm.models.save_for_hf(
        model, str(folder), label_names, safe_serialization=True, data_config=preprocessing
    )
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _export_to_open_clip(
    model: OpenClipClassifier,
    facts: Mapping,
    preprocessing: Mapping,
    published: PublishedModel,
    files: ExportFiles,
) -> nn.Module:
    """Write a network for open_clip, with its published text tower, and its head in another file.

    Returns the network that open_clip opens there, with this head.
    """
    assert files.head is not None
    both_towers = _with_published_text_tower(model, facts, published)
    tensors = {name: tensor.contiguous() for name, tensor in both_towers.state_dict().items()}
    refuse_full_disk(files.weights.parent, _bytes_of(tensors), "an export")
    _write_open_clip_config(both_towers, facts, preprocessing, files.config)
    safetensors.torch.save_file(tensors, files.weights)
    safetensors.torch.save_file(model.head.state_dict(), files.head)
    return _opened_by_open_clip(files.weights.parent, files.head)


def _with_published_text_tower(
    model: OpenClipClassifier, facts: Mapping, published: PublishedModel
) -> nn.Module:
    """The published open_clip model, with the image tower of a network in place of its own."""
    assert published.archive is not None and published.weights is not None
    state = read_state(published.archive, published.weights.get("member"), facts["name"])
    both_towers = with_weights(
        state,
        facts["library"],
        facts["architecture"],
        facts["arguments"],
        published.weights["keys"],
        facts["name"],
    )
    both_towers.get_submodule("visual").load_state_dict(model.visual.state_dict())
    return both_towers


def _write_open_clip_config(
    both_towers: nn.Module, facts: Mapping, preprocessing: Mapping, path: Path
) -> None:
    """Write an open_clip_config.json: a model's configuration and its preprocessing of images.

    Args:
        both_towers: the model, to which open_clip adds the preprocessing.
        facts: model.json of the pretrained model.
    """
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    config = facts["arguments"].get("model_cfg")
    if not config:
        config = open_clip.get_model_config(facts["architecture"])
    config = deepcopy(config)
    config["vision_cfg"]["image_size"] = preprocessing["size"]
    resize_mode = "squash" if preprocessing["crop_mode"] == "squash" else "shortest"
    open_clip.model.set_model_preprocess_cfg(
        both_towers, {**preprocessing, "resize_mode": resize_mode}
    )
    save_config_for_hf(both_towers, path, config)


def _opened_by_open_clip(folder: Path, head_file: Path) -> OpenClipClassifier:
    """The image tower that open_clip opens in a folder, with a head from a file."""
    import open_clip

    opened = open_clip.create_model(f"local-dir:{folder}")
    head_tensors = safetensors.torch.load_file(head_file)
    outputs, width = head_tensors["weight"].shape
    classifier = OpenClipClassifier(opened.visual, width, outputs)
    classifier.head.load_state_dict(head_tensors)
    return classifier


def _bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Size of tensors in memory, in bytes."""
    return sum(tensor.nbytes for tensor in tensors.values())

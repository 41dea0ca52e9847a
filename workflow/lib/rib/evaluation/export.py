"""Export of a run's network in its library's format, for use without this project."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import timm
import torch
from torch import nn

from rib.base.errors import UserError
from rib.base.files import refuse_full_disk
from rib.data.data_settings import DatasetView
from rib.data.splits import TEST
from rib.data.subsets import first_images
from rib.data.view import DatasetFiles, load_dataset
from rib.evaluation.networks import RunNetworks, mixture_of_run
from rib.models.checkpoint import apply
from rib.models.images import Images
from rib.models.network import Classifier, OpenClipClassifier, load
from rib.models.weights import read_state, with_weights
from rib.schema.run import Run

CHECKED = 8  # images of the target for which the export must give the same logits
CPU = torch.device("cpu")
# Facts of timm's record that describe the architecture, not the published weights.
KEPT = ("architecture", "input_size", "fixed_input_size", "num_classes", "first_conv", "classifier")


def export_network(
    *,
    run: Run,
    networks: RunNetworks,
    target: DatasetFiles,
    view: DatasetView,
    archive: Path | None,
    published: Mapping[str, Any],
    label_names: Sequence[str] | None,
    weights: Path,
    config: Path,
    head: Path | None = None,
) -> dict[str, Any]:
    """Write a run's network to files that create_model of timm or open_clip opens.

    LoRA's updates are added to the weights of plain layers.

    Args:
        target: dataset for the check that the export gives the same logits.
        view: which of the target's images are read, and their size.
        archive: published weights of an open_clip model, whose text tower is exported too; None
            for timm.
        published: `weights` of the model's entry, such as {"keys": "by_name"}, for open_clip.
        label_names: names of the network's outputs; None for ImageNet's.
        weights: .safetensors file to write, with the file name that the library expects.
        config: JSON file to write in the same folder, with the file name that the library expects.
        head: .safetensors file to write for open_clip: weight (C, d) and bias (C,) of the
            classifier, for unit-norm features.

    Returns:
        Preprocessing of images, such as {"mean": [0.5, 0.5, 0.5], "size": 224, ...}.

    Raises:
        UserError: the run has several networks or a padding prompt, the disk is too full, or the
            export gives other logits.
    """
    mixture = mixture_of_run(run, networks.states)
    pretrained, facts = load(networks.model_folder, CPU)
    network = apply(pretrained, mixture, networks.checkpoints)
    # torch's types lack memory_format.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if not hasattr(network, "get_classifier"):
        raise UserError(f"{run}: a padding prompt can't be exported; choose another method.")
    model = cast(Classifier, network)
    geometry = view.geometry
    assert geometry is not None  # a view without geometry reads no pixels
    preprocessing = {
        **facts["preprocessing"],
        **vars(geometry),
        "input_size": (3, geometry.size, geometry.size),
    }
    if isinstance(model, OpenClipClassifier):
        assert archive is not None and head is not None
        both_towers = _with_published_text_tower(model, facts, archive, published)
        exported = _export_to_open_clip(
            model, both_towers, facts, preprocessing, weights, config, head
        )
    else:
        exported = _export_to_timm(model, label_names, preprocessing, weights.parent)
    images = first_images(load_dataset(target, view, TEST), CHECKED)
    inputs = Images(images, preprocessing, CPU)[:]
    with torch.inference_mode():
        is_same = torch.equal(model(inputs), exported.eval()(inputs))
    if not is_same:
        raise UserError(
            f"{run}: {facts['library']} gives other logits for the export; don't use it."
        )
    return preprocessing


def _export_to_timm(
    model: Classifier, label_names: Sequence[str] | None, preprocessing: dict, folder: Path
) -> nn.Module:
    """Write the network to the folder; return the network that timm opens from there."""
    refuse_full_disk(folder, _bytes_of(model.state_dict()), "an export")
    # Drops facts of the published weights.
    model.pretrained_cfg = {key: fact for key, fact in model.pretrained_cfg.items() if key in KEPT}
    timm.models.save_for_hf(
        model,
        str(folder),
        {"label_names": label_names},
        safe_serialization=True,
        data_config=preprocessing,
    )
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _export_to_open_clip(
    model: OpenClipClassifier,
    both_towers: nn.Module,
    facts: Mapping,
    preprocessing: Mapping,
    weights: Path,
    config: Path,
    head: Path,
) -> nn.Module:
    """Write the files; return the network that open_clip opens, with the head's file."""
    tensors = {name: tensor.contiguous() for name, tensor in both_towers.state_dict().items()}
    refuse_full_disk(weights.parent, _bytes_of(tensors), "an export")
    _write_open_clip_config(both_towers, facts, preprocessing, config)
    safetensors.torch.save_file(tensors, weights)
    safetensors.torch.save_file(model.head.state_dict(), head)
    return _opened_by_open_clip(weights.parent, head)


def _with_published_text_tower(
    model: OpenClipClassifier, facts: Mapping, archive: Path, published: Mapping[str, Any]
) -> nn.Module:
    """The published open_clip model with the network's image tower."""
    state = read_state(archive, published.get("member"), facts["name"])
    both_towers = with_weights(
        state,
        facts["library"],
        facts["architecture"],
        facts["arguments"],
        published["keys"],
        facts["name"],
    )
    both_towers.get_submodule("visual").load_state_dict(model.visual.state_dict())
    return both_towers


def _write_open_clip_config(
    both_towers: nn.Module, facts: Mapping, preprocessing: Mapping, path: Path
) -> None:
    """Write open_clip's JSON file to build the model; `facts` are the content of model.json."""
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
    """The exported image tower, with the head that open_clip doesn't know."""
    import open_clip

    opened = open_clip.create_model(f"local-dir:{folder}")
    head_tensors = safetensors.torch.load_file(head_file)
    outputs, width = head_tensors["weight"].shape
    classifier = OpenClipClassifier(opened.visual, width, outputs)
    classifier.head.load_state_dict(head_tensors)
    return classifier


def _bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())

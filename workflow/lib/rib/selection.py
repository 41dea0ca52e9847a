"""Selection of merges on held-out images of the target: WiSE-FT's alpha, the ingredients of a greedy soup."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from rib.data.splits import SELECT, opened, part
from rib.evaluate import score
from rib.io import Progress, log
from rib.merge import store_recipe
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.pretrained import load
from rib.plugins import load_module


def select(
    *,
    model_folder: Path,
    target_folder: Path,
    target: str,
    apart: Path | None,
    images: Mapping,
    mechanism: str,
    settings: Mapping,
    parents: Sequence[str],
    checkpoints: Sequence[Path],
    manifests: Sequence[Path],
    split: Path,
    batch_size: int,
    compute: Mapping,
    recipe: Path,
) -> None:
    """Choose a merge by its accuracy on the select split of the target and write it as a recipe.

    Args:
        model_folder: what a models job wrote.
        target_folder: what a prepare job wrote for the target.
        target: its name.
        apart: folder of the dataset of which a part stands for pretraining, where the target shares its sources.
        images: how datasets are seen (rib.data.splits.opened).
        mechanism: file of the method's mechanism.
        settings: its settings.
        parents: the fine-tuned methods that may be merged.
        checkpoints: theirs, in the same order.
        manifests: of the checkpoints.
        split: of the target.
        batch_size: images per forward pass.
        compute: device, threads (see rib.models.device.start).
        recipe: written as JSON, with the accuracy of every candidate on the select split.
    """
    device = devices.start(**compute)
    held_out = part(opened(target_folder, target, images, apart), SELECT, split)
    files = dict(zip(parents, checkpoints, strict=True))
    scores: dict[tuple, dict] = {}

    def accuracy(weights: Mapping[str, float]) -> float:
        """Share of the select images that a state gets right; each state is scored once."""
        key = tuple(sorted(weights.items()))
        if key not in scores:
            model, facts = load(model_folder, device)
            model = apply(model, weights, files).eval()
            preprocessing = facts["preprocessing"]
            inputs = Inputs(held_out.images, preprocessing["mean"], preprocessing["std"], device, held_out.rows)
            progress = Progress(desc=f"selecting on {target}", total=len(inputs), unit="image")
            found = score([model], inputs, held_out, batch_size, progress)[0]["prediction"]
            right = (found == torch.from_numpy(held_out.labels)).float().mean().item()
            scores[key] = {"weights": dict(weights), "accuracy": round(right, 6), "images": len(inputs)}
            log.info("%s: %.1f %% of %d select images", dict(weights), 100 * right, len(inputs))
        return scores[key]["accuracy"]

    chosen = load_module(mechanism).select(parents, accuracy, **settings)
    store_recipe(recipe, [(None, chosen)], parents, manifests, list(scores.values()))

"""Selection of merges on held-out target images: WiSE-FT's alpha, the ingredients of a greedy soup."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rib.base.plugins import load_module
from rib.base.progress import log
from rib.data.splits import SELECT
from rib.data.view import DatasetFiles, DatasetView, load_dataset
from rib.evaluation.recipes import State, store_recipe
from rib.evaluation.score import correct
from rib.models import device as devices
from rib.models.checkpoint import apply
from rib.models.inputs import Inputs
from rib.models.network import load


def select_weights(
    *,
    model_folder: Path,
    target: DatasetFiles,
    view: DatasetView,
    algorithm: str,
    settings: Mapping,
    parents: Sequence[str],
    checkpoints: Mapping[str, Path],
    manifests: Sequence[Path],
    batch_size: int,
    compute: devices.ComputeSettings,
    recipe: Path,
) -> None:
    """Choose a merge by its accuracy on the select split of the target and write it as a recipe (see `store_recipe`).

    The candidates are all states that the algorithm in the given file scored.
    """
    device = devices.start(compute)
    held_out = load_dataset(target, view, SELECT)
    scores: dict[tuple, dict] = {}

    def accuracy(weights: Mapping[str, float]) -> float:
        """Accuracy of a state on the select images, as a fraction; each state is scored once."""
        key = tuple(sorted(weights.items()))
        if key not in scores:
            model, facts = load(model_folder, device)
            model = apply(model, weights, checkpoints).eval()
            inputs, what = (
                Inputs.of(held_out, facts["preprocessing"], device),
                f"selecting on {target.name}",
            )
            right = correct(model, inputs, held_out, batch_size, what).float().mean().item()
            scores[key] = {
                "weights": dict(weights),
                "accuracy": round(right, 6),
                "images": len(inputs),
            }
            log.info("%s: %.1f %% of %d select images", dict(weights), 100 * right, len(inputs))
        return scores[key]["accuracy"]

    chosen = load_module(algorithm).select(parents, accuracy, **settings)
    store_recipe(recipe, [State(None, chosen)], parents, manifests, list(scores.values()))

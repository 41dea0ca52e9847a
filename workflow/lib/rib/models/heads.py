"""Heads for a family's classes: fitted on the pretraining proxy; tokenizers for zero-shot heads."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rib.base.errors import UserError
from rib.base.files import write_json
from rib.base.progress import Progress, log
from rib.data.dataset import PreparedDataset
from rib.data.subsets import held_back
from rib.models.images import Images, in_batches
from rib.models.network import Classifier, head_inputs
from rib.schema.model_arguments import TOKENIZER_OPTIONS

SELECT_FRACTION = 0.2  # fraction of each class's images that choose the penalty
# Penalties as powers of ten, strongest first, since each fit starts from the previous one.
POWERS = range(1, -7, -1)
# Limits of the search for a penalty, as powers of ten.
STRONGEST = 4
WEAKEST = -8
ITERATIONS = 500
BATCH = 64
CHUNK = 1 << 16  # images with logits in memory at once
MORE_IMAGES = "add images, or raise budget.max_images_per_dataset or reference.images_per_class"


def load_tokenizer(
    architecture: str, arguments: Mapping, files: Sequence[Path], sources: Sequence[Mapping]
) -> Callable:
    """Tokenizer of an open_clip model: a function from N texts to tokens (N, L).

    It comes from open_clip or from files, never from the hub.

    Args:
        architecture: such as `ViT-B-32`.
        arguments: arguments of open_clip's create_model, such as {"model_cfg": {...}}.
        files: none if open_clip has the tokenizer.
        sources: source of each file, such as {"path": "tokenizer.json"}.

    Raises:
        UserError: the tokenizer can't be made, has options that open_clip's tokenizers lack, or has
            code.
    """
    import open_clip

    config = arguments.get("model_cfg")
    if not config:
        config = open_clip.get_model_config(architecture)
    text_config = config["text_cfg"]
    _refuse_unsafe_tokenizer(architecture, text_config, files)
    options = {}
    if "hf_tokenizer_name" in text_config:
        # Don't run the tokenizer's code, and don't ask on the terminal.
        options["trust_remote_code"] = False
    # open_clip reads the configuration and the files from a folder.
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "open_clip_config.json", {"model_cfg": config})
        for file, source in zip(files, sources, strict=True):
            file_name = Path(source.get("path", source["file"])).name
            shutil.copyfile(file, Path(folder) / file_name)
        try:
            tokenizer: Callable = open_clip.get_tokenizer(f"local-dir:{folder}", **options)
        except Exception as error:  # of transformers
            reason = " ".join(str(error).split())[:200]
            names_of_files = ", ".join(str(file) for file in files)
            raise UserError(
                f"{architecture}: its tokenizer can't be made from {names_of_files} ({reason})."
            ) from error
    return tokenizer


def _refuse_unsafe_tokenizer(
    architecture: str, text_config: Mapping, files: Sequence[Path]
) -> None:
    """Raise a UserError if a tokenizer has unknown options or would run code."""
    # `auto_map` in a file names code that transformers would run.
    has_other_options = not TOKENIZER_OPTIONS.issuperset(text_config.get("tokenizer_kwargs", {}))
    if has_other_options or any(b"auto_map" in file.read_bytes() for file in files):
        raise UserError(
            f"{architecture}: its tokenizer has other options than open_clip's own, or code; "
            "don't use it."
        )


@dataclass(frozen=True)
class LinearHead:
    """A linear map from features to logits."""

    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)


@dataclass(frozen=True)
class SelectScores:
    """Scores of a head on the select images, which are held out to choose the penalty."""

    cross_entropy: float  # mean, in nats
    accuracy: float  # 0 to 1
    confidence: float  # mean, 0 to 1


@dataclass(frozen=True)
class Standardisation:
    """Shift and scale of features: (features - mean) / scale."""

    mean: Tensor  # (d,)
    scale: Tensor  # scalar


def fit_head(
    model: Classifier, reference: PreparedDataset, preprocessing: Mapping, device: torch.device
) -> dict:
    """Fit a network's linear head in place by regularised logistic regression.

    The penalty is chosen on held-out images of the pretraining proxy by cross-entropy, which unlike
    accuracy depends on confidence. The head is then fitted on the whole proxy.

    Args:
        reference: the pretraining proxy: images that stand in for the pretraining data.

    Returns:
        Facts such as {"penalty": 0.01, "select_cross_entropy": {"0.1": 0.9, "0.01": 0.8},
        "select_accuracy": 0.75, "select_confidence": 0.7, "images": 5000}. Cross-entropies, one for
        each candidate, are in nats; accuracy and confidence (0 to 1) belong to the chosen penalty.

    Raises:
        UserError: the network has no linear head, a class has no image, or no class has two.
    """
    head = model.get_classifier()
    if not isinstance(head, nn.Linear | nn.Conv2d):
        raise UserError(
            f"the network's head is a {type(head).__name__}, but only a linear head can be fitted."
        )
    classes = head.weight.shape[0]
    labels = _labels_of_outputs(reference, classes, device)
    images = Images(reference, preprocessing, device)
    features_of_images = partial(head_inputs, model)
    features = in_batches(features_of_images, images, BATCH, "features for the head").float()
    standardisation = _standardise(features)
    is_select = torch.from_numpy(held_back(reference, SELECT_FRACTION)).to(device)
    if not is_select.any():
        raise UserError(
            f"{reference.name}: this run uses one image of each class, so none can be held out to "
            f"choose the penalty of the head; {MORE_IMAGES}."
        )
    scores_by_power = _scores_by_penalty(features, labels, is_select, classes)
    best_power = _best_penalty(scores_by_power)
    fitted = _fit_penalised(features, labels, classes, 10.0**best_power, None)
    _copy_into_head(fitted, standardisation, head)
    best_scores = scores_by_power[best_power]
    _log_choice(best_power, best_scores)
    return {
        "penalty": 10.0**best_power,
        "select_cross_entropy": {
            f"{10.0**power:g}": round(scores.cross_entropy, 6)
            for power, scores in scores_by_power.items()
        },
        "select_accuracy": round(best_scores.accuracy, 6),
        "select_confidence": round(best_scores.confidence, 6),
        "images": len(labels),
    }


def _standardise(features: Tensor) -> Standardisation:
    """Standardise features (n, d) in place; return shift and scale, to undo it."""
    # One scale for all of a network's features makes penalties comparable between networks.
    mean = features.mean(dim=0)
    scale = features.std(dim=0).mean()
    features.sub_(mean).div_(scale)
    return Standardisation(mean, scale)


@torch.no_grad()
def _copy_into_head(
    fitted: LinearHead, standardisation: Standardisation, head: nn.Linear | nn.Conv2d
) -> None:
    # The head was fitted on standardised features, but the network gives it plain features x:
    # W (x - mean) / scale + b = (W / scale) x + b - (W / scale) mean
    weight = fitted.weight / standardisation.scale
    head.weight.copy_(weight.view_as(head.weight))
    assert head.bias is not None  # heads of classifiers have a bias
    head.bias.copy_(fitted.bias - weight @ standardisation.mean)


def _labels_of_outputs(reference: PreparedDataset, outputs: int, device: torch.device) -> Tensor:
    """Labels to fit on: the network output (n,) of each image's class."""
    output_of_class = [class_outputs[0] for class_outputs in reference.space.indices]
    labels = torch.tensor([output_of_class[label] for label in reference.labels], device=device)
    missing_outputs = set(range(outputs)) - set(labels.tolist())
    if missing_outputs:
        first = min(missing_outputs)
        first_class = f"output {first}"  # the dataset may have only some of the classes
        if first in output_of_class:
            first_class = f"'{reference.space.names[output_of_class.index(first)]}'"
        raise UserError(
            f"{reference.name}: {len(missing_outputs)} of {outputs} classes, such as "
            f"{first_class}, have no image among the {len(labels)} that this run uses, so a head "
            f"can't be fitted; {MORE_IMAGES}."
        )
    return labels


def _log_choice(power: int, scores: SelectScores) -> None:
    log.info(
        "head fitted with penalty %g: on the select images accuracy %.1f %%, confidence %.2f, "
        "cross-entropy %.3f",
        10.0**power,
        100 * scores.accuracy,
        scores.confidence,
        scores.cross_entropy,
    )
    if power in (STRONGEST, WEAKEST):
        log.warning(
            "the head's penalty %g is at the end of the search range, so another might fit better: "
            "this model's confidence before fine-tuning depends on the range",
            10.0**power,
        )


def _scores_by_penalty(
    features: Tensor, labels: Tensor, is_select: Tensor, classes: int
) -> dict[int, SelectScores]:
    """Fit a head with each penalty: {-2: SelectScores(...)} is the score of the penalty 0.01."""
    train_features = features[~is_select]
    train_labels = labels[~is_select]
    select_features = features[is_select]
    select_labels = labels[is_select]
    head_of: dict[int, LinearHead] = {}  # by power of ten of the penalty
    scores_of: dict[int, SelectScores] = {}

    def try_penalty(power: int, start: LinearHead | None) -> None:
        head = _fit_penalised(train_features, train_labels, classes, 10.0**power, start)
        head_of[power] = head
        scores_of[power] = _score(head, select_features, select_labels)

    for power in Progress(POWERS, desc="choosing the head's penalty", unit="fit"):
        stronger_head = head_of.get(power + 1)
        try_penalty(power, stronger_head)
    # While the best penalty is the strongest or weakest so far, try the next beyond it.
    power_beyond = _penalty_beyond(scores_of)
    while power_beyond is not None:
        best_head = head_of[_best_penalty(scores_of)]
        try_penalty(power_beyond, best_head)
        power_beyond = _penalty_beyond(scores_of)
    return scores_of


def _best_penalty(scores_by_power: Mapping[int, SelectScores]) -> int:
    """Power of ten with the lowest cross-entropy; among ties the strongest penalty."""
    return min(scores_by_power, key=lambda power: (scores_by_power[power].cross_entropy, -power))


def _penalty_beyond(scores_by_power: Mapping[int, SelectScores]) -> int | None:
    """The next power to try: if -2 to 1 were tried and 1 is best, 2; if 0 is best, None."""
    best_power = _best_penalty(scores_by_power)
    if best_power in (STRONGEST, WEAKEST):
        return None
    if best_power == max(scores_by_power):
        return best_power + 1
    if best_power == min(scores_by_power):
        return best_power - 1
    return None


def _score(head: LinearHead, features: Tensor, labels: Tensor) -> SelectScores:
    """From features (n, d) and labels (n,) of the select images."""
    logits = features @ head.weight.T + head.bias
    confidences, predictions = logits.softmax(dim=1).max(dim=1)
    return SelectScores(
        cross_entropy=F.cross_entropy(logits, labels).item(),
        accuracy=(predictions == labels).float().mean().item(),
        confidence=confidences.mean().item(),
    )


def _fit_penalised(
    features: Tensor, labels: Tensor, classes: int, penalty: float, start: LinearHead | None
) -> LinearHead:
    """Minimise mean CE(W x + b, y) + penalty / 2 |W|^2 over W (C, d) and b (C,).

    The loss is convex, so `start`, the head of a similar penalty, only saves iterations.
    """
    if start is None:
        weight = features.new_zeros(classes, features.shape[1])
        bias = features.new_zeros(classes)
    else:
        weight = start.weight.clone()
        bias = start.bias.clone()
    weight.requires_grad_()
    bias.requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def compute_loss() -> Tensor:
        # The solver needs the gradients of W and b too, which backward() sets.
        solver.zero_grad()
        # Double precision: in single precision, changes of the loss below 1e-7 are lost and the
        # solver stops early.
        loss: Tensor = penalty / 2 * weight.double().square().sum()
        loss.backward()
        # In chunks, since the logits of all images may not fit into memory.
        for first_row in range(0, len(labels), CHUNK):
            rows = slice(first_row, first_row + CHUNK)
            logits = features[rows] @ weight.T + bias
            cross_entropies = F.cross_entropy(logits, labels[rows], reduction="none")
            loss_of_chunk = cross_entropies.double().sum() / len(labels)
            loss_of_chunk.backward()
            loss = loss.detach() + loss_of_chunk.detach()
        return loss

    solver.step(compute_loss)
    return LinearHead(weight.detach(), bias.detach())

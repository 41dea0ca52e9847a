"""The images of Fashion-MNIST that a linear network gets wrong: fashion_adversarial.csv.

The network is a softmax regression on the pixels, which is none of the benchmark's. It is trained
on the images of `fashion_train`; of the 5,000 images that are used for nothing else, those that it
gets right are discarded (as Hendrycks et al. 2021 did with a ResNet-50 for ImageNet-A, arXiv
1907.07174). Run it after the files were downloaded:

    PYTHONPATH=workflow/lib python workflow/catalog/fashion_adversarial.py data/raw/fashion_train

Training takes all images in each step, and there is nothing random. Rounding may differ in the last
digits between machines, which changes a prediction only if two classes are nearly equal to the
last of them.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import yaml

from rib.data.layouts.idx import IMAGES, LABELS, rank_in_class, read_labels, read_photos

CATALOG = Path(__file__).resolve().parent
CLASSES = 10
STEPS = 100
RATE = 0.05
MOMENTUM = 0.9


def main(folder: Path) -> None:
    """Write fashion_adversarial.csv beside this script.

    Args:
        folder: the four decompressed idx files.
    """
    settings_of_dataset = {}
    entries = yaml.safe_load((CATALOG / "datasets.yaml").read_text(encoding="utf-8"))
    for name in ("fashion_train", "fashion_adversarial"):
        settings_of_dataset[name] = entries[name]["settings"]
    part = settings_of_dataset["fashion_adversarial"]["part"]
    rows = wrong_images(folder, settings_of_dataset)
    with open(CATALOG / "fashion_adversarial.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "label", "predicted"])
        for number, label, predicted in rows:
            writer.writerow([f"{part}/{number:05d}", label, predicted])


def wrong_images(folder: Path, settings_of_dataset: dict[str, dict]) -> list[tuple[int, int, int]]:
    """Number, label and prediction of the images that the network gets wrong, in the file's order.

    Args:
        folder: the four decompressed idx files.
        settings_of_dataset: settings of the layout of `fashion_train` and `fashion_adversarial`.
    """
    training = settings_of_dataset["fashion_train"]
    candidates = settings_of_dataset["fashion_adversarial"]
    training_numbers, training_pixels, training_labels = _images_of(folder, training)
    numbers, pixels, labels = _images_of(folder, candidates)
    assert not set(training_numbers) & set(numbers) or training["part"] != candidates["part"]
    weights = train(training_pixels, training_labels)
    predicted = predict(weights, pixels)
    rows = []
    for position in np.flatnonzero(predicted != labels):
        rows.append((int(numbers[position]), int(labels[position]), int(predicted[position])))
    return rows


def _images_of(folder: Path, settings: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (n,), pixels from 0 to 1 with a constant, (n, d + 1) float64, and labels (n,)."""
    labels = read_labels(folder / f"{settings['part']}-{LABELS}")
    rank = rank_in_class(labels)
    numbers = np.flatnonzero((settings["first"] <= rank) & (rank < settings["last"]))
    images = read_photos(folder / f"{settings['part']}-{IMAGES}")[numbers]
    pixels = images.reshape(len(images), -1) / 255
    constant = np.ones((len(images), 1))
    return numbers, np.hstack([pixels, constant]), np.array(labels[numbers])


def train(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a softmax regression, (d + 1, CLASSES), after steps of gradient descent.

    Args:
        pixels: (n, d + 1) float64.
        labels: (n,) from 0 to CLASSES - 1.
    """
    targets = np.eye(CLASSES)[labels]
    mean = pixels.mean(axis=0)
    mean[-1] = 0  # of the constant
    centred = pixels - mean
    weights = np.zeros((pixels.shape[1], CLASSES))
    velocity = np.zeros_like(weights)
    for _ in range(STEPS):
        logits = centred @ weights
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = centred.T @ (shares - targets) / len(pixels)
        velocity = MOMENTUM * velocity - RATE * gradient
        weights = weights + velocity
    weights[-1] -= mean @ weights  # so that pixels need not be centred
    return weights


def predict(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The class with the highest logit of each image: (n,)."""
    predicted: np.ndarray = np.argmax(pixels @ weights, axis=1)
    return predicted


if __name__ == "__main__":
    main(Path(sys.argv[1]))

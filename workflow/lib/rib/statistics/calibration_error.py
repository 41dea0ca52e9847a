"""Expected calibration error (ECE), and its floor, the ECE of a calibrated model. No torch.

ECE bins images by confidence into 15 bins of equal width and averages |mean confidence - accuracy|
over bins, weighted by their number of images (Guo et al. 2017, arXiv 1706.04599, equation 3). Even
a model that is right with the probability of its confidence has an ECE above 0 by chance. This
floor depends on the confidences, so it differs before and after fine-tuning.
"""

import numpy as np
from scipy.stats import binom

BINS = 15


def calibration_error_and_floor(confidence: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Expected calibration error (ECE) with 15 bins, and its floor, both in percent.

    The floor is the ECE that is expected for a perfectly calibrated model. It takes the number of
    right predictions in a bin as binomial with the bin's mean confidence, which makes it at most
    4 % of itself too large.

    Args:
        confidence: (n,) of the predictions, 0 to 1.
        right: (n,) bool, whether the prediction is right.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3: |B|/n * |acc(B) - conf(B)| equals the
    absolute sum of right - confidence over the bin's images, divided by n. Floor: De Moivre's mean
    absolute deviation of a binomial distribution, 2 k (1 - p) P(k) with k = floor(n p) + 1.
    """
    confidence = confidence.astype(np.float64).clip(0, 1)  # rounding may give more than 1
    bin_of_image = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)

    # (BINS,): the absolute sum of right - confidence, and its mean by chance.
    gaps = np.abs(np.bincount(bin_of_image, right - confidence, BINS))
    n = np.bincount(bin_of_image, minlength=BINS)
    expected_right = np.bincount(bin_of_image, confidence, BINS)  # n p
    p = expected_right / np.maximum(n, 1)
    k = np.floor(expected_right) + 1
    gaps_by_chance = 2 * k * (1 - p) * binom.pmf(k, n, p)

    images = len(confidence)
    error = 100 * float(gaps.sum()) / images
    floor = 100 * float(gaps_by_chance.sum()) / images
    return error, floor

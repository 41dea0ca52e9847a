"""Bootstrap over resampling units."""

import numpy as np


def object_weights(objects: int, replicates: int, seed: int) -> np.ndarray:
    """Bootstrap weights: row 0 counts every object once, each other row draws as many with replacement.

    All runs and datasets share the same draws, so differences between them are paired.

    Returns:
        (replicates + 1, objects) uint8; no object is drawn 256 times.
    """
    rng, uniform = np.random.default_rng(seed), np.full(objects, 1 / objects)
    weights = np.ones((replicates + 1, objects), np.uint8)
    for row in weights[1:]:
        row[:] = rng.multinomial(objects, uniform)
    return weights


def estimate(values: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Observed value, the first of (1 + replicates,), and the percentile confidence interval of the replicates.

    A replicate that drew no object of a dataset is NaN, which can happen if the dataset has few objects.
    """
    tail = 50 * (1 - confidence)
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [tail, 100 - tail]) if len(drawn) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)

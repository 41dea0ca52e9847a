"""STIR where its value is known: linear networks, whose inversions are solved exactly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import timm
import torch

from rib.analyses.stir.tables import stir_table
from rib.base.errors import UserError
from rib.base.progress import Progress
from rib.evaluation.inversion import invert, representation_of, starts
from rib.statistics.cka import Kernel, cka, jackknife_interval
from tiny.models.training import CPU
from tiny.tables.tables import write

IMAGES = 60
SIDE = 4
PIXELS = 3 * SIDE**2
WIDTH = 8  # number of features
SEED_OF_STARTS = 3


def cka_of(features, other_features):
    """CKA of two sets of features (N, d) of the same images, each of an object of its own."""
    objects = np.arange(len(features))
    kernel = Kernel.of(features.numpy(), objects, "a")
    other_kernel = Kernel.of(other_features.numpy(), objects, "a")
    on_all_images, *_ = cka(kernel, other_kernel)
    return on_all_images


@pytest.fixture
def generator():
    """Random numbers, the same for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(generator):
    """Images of noise, (IMAGES, 3, SIDE, SIDE)."""
    return torch.rand((IMAGES, 3, SIDE, SIDE), generator=generator)


@pytest.fixture
def start(images, generator):
    """Other images of noise, from which inversions start."""
    return torch.rand(images.shape, generator=generator)


@pytest.fixture
def directions(start, generator):
    """Orthonormal rows that span the space of all pixels, (PIXELS, PIXELS)."""
    orthogonal, _ = torch.linalg.qr(torch.randn(PIXELS, PIXELS, generator=generator))
    return orthogonal.T


def linear_network(directions_that_are_read):
    """A function that gives features (N, d) of images, from d directions of their pixels."""
    return lambda images: (images - 0.5).flatten(1) @ directions_that_are_read.T


def inverted(representation, images, start, steps=400, lr=0.05):
    """Images with the features of some images, and their residuals, see `invert`."""
    passes = len(images) * steps
    progress = Progress(desc="test", total=passes, unit="pass")
    features = representation(images)
    inversions, residuals = invert(representation, features, start, steps, lr, progress)
    assert progress.n == passes, "passes are counted"
    return inversions, residuals


def residuals_of(representation, images, inversions):
    """How far the features of inversions are off those of images, by the norm of these: (N,)."""
    features = representation(images)
    distances = (representation(inversions) - features).norm(dim=1)
    return distances / features.norm(dim=1)


def test_inversion_of_a_linear_network_reaches_what_it_is_to_reach(images, start, directions):
    network = linear_network(directions[:WIDTH])
    inversions, residuals = inverted(network, images, start)
    expected = residuals_of(network, images, inversions)
    assert residuals.max() < 0.01
    assert inversions.min() >= 0
    assert inversions.max() <= 1
    torch.testing.assert_close(residuals, expected, rtol=1e-3, atol=1e-6)
    difference = (inversions - images).abs().mean()
    assert difference > 0.1, "other images that the network can't tell apart"


def test_stir_is_1_for_one_that_reads_the_same_and_0_for_one_that_reads_what_the_other_ignores(
    images, start, directions
):
    # given
    read_directions = directions[:WIDTH]
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
    network = linear_network(read_directions)
    reads_the_same = linear_network(mixing @ read_directions)
    reads_the_ignored = linear_network(directions[WIDTH : 2 * WIDTH])
    # when
    inversions, _ = inverted(network, images, start)
    # then
    assert cka_of(reads_the_same(images), reads_the_same(inversions)) > 0.999
    assert abs(cka_of(reads_the_ignored(images), reads_the_ignored(inversions))) < 0.1


def test_a_network_that_reads_less_shares_the_invariances_of_one_that_reads_more_not_vice_versa(
    images, start, directions
):
    # given
    reads_more = linear_network(directions[:WIDTH])
    reads_less = linear_network(directions[: WIDTH // 4])
    # when
    inversions_of_more, _ = inverted(reads_more, images, start)
    inversions_of_less, _ = inverted(reads_less, images, start)
    # then
    assert cka_of(reads_less(images), reads_less(inversions_of_more)) > 0.999
    assert cka_of(reads_more(images), reads_more(inversions_of_less)) < 0.7


def test_the_best_image_of_all_steps_is_kept(images, start, directions):
    # given
    network = linear_network(directions[:WIDTH])
    throws_pixels_to_the_ends_of_their_range = 100.0
    # when
    unmoved, residuals_of_start = inverted(network, images, start, steps=0)
    thrown, residuals_of_thrown = inverted(
        network, images, start, steps=5, lr=throws_pixels_to_the_ends_of_their_range
    )
    solved, residuals_of_solved = inverted(network, images, images.clone(), steps=3)
    # then
    assert torch.equal(unmoved, start)
    assert (residuals_of_thrown <= residuals_of_start + 1e-6).all()
    assert torch.isfinite(thrown).all()
    assert torch.equal(solved, images)
    assert residuals_of_solved.max() < 1e-5


PREPROCESSING_OF_VIT = {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def vit():
    """A small transformer."""
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32).eval().requires_grad_(False)


@pytest.fixture
def photos():
    """Four images of noise for this transformer."""
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_representation_is_the_networks_features_of_preprocessed_images(vit, photos):
    representation = representation_of(vit, PREPROCESSING_OF_VIT, "pre_logits", CPU)
    with torch.no_grad():
        tokens = vit.forward_features((photos - 0.5) / 0.25)
        expected = vit.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(representation(photos), expected)


def test_each_image_is_inverted_by_itself(vit, photos):
    """With a real network, in whatever batch."""
    # given
    representation = representation_of(vit, PREPROCESSING_OF_VIT, "pre_logits", CPU)
    start = starts(photos, "noise", [], SEED_OF_STARTS)
    # when
    together, residuals = inverted(representation, photos, start, steps=10)
    alone, _ = inverted(representation, photos[:2], start[:2], steps=10)
    # then
    torch.testing.assert_close(together[:2], alone, rtol=1e-3, atol=1e-3)
    assert (residuals < residuals_of(representation, photos, start)).all()


def test_starts_are_the_same_for_every_run_and_depend_on_the_seed():
    like = torch.zeros(3, 3, 4, 4)
    noise = starts(like, "noise", [], seed=1)
    assert noise.shape == like.shape
    assert torch.equal(noise, starts(like, "noise", [], seed=1))
    assert not torch.equal(noise, starts(like, "noise", [], seed=2))


def test_starts_may_have_one_colour():
    like = torch.zeros(3, 3, 4, 4)
    colour = torch.tensor([0.1, 0.2, 0.3])
    coloured = starts(like, "mean", colour.tolist(), seed=0)
    assert coloured.shape == like.shape
    assert torch.equal(coloured, colour[:, None, None].expand(like.shape))


def test_a_layer_that_the_network_lacks_is_refused(vit, photos):
    representation = representation_of(vit, PREPROCESSING_OF_VIT, "stage9", CPU)
    with pytest.raises(UserError, match=r"stir\.layer.*'stage9'.*stage1"):
        representation(photos)


# The table.

SETTINGS = {"layer": "stage4", "steps": 7, "confidence": 0.9}
OBJECTS = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # of the images; two show the same
N = len(OBJECTS)
FEATURES = [
    f"{network}.{images}"
    for network in ("before", "after")
    for images in ("images", "inverted_before", "inverted_after")
]


@dataclass(frozen=True)
class StirJob:
    """What the job of a run has stored."""

    run: dict  # its columns
    features: Path
    index: Path
    arrays: dict  # features (N, 4) and residuals (N,), by name


def stored_job(folder, run, rng):
    """Store random features of a run on the dataset `t`, which are more or less alike.

    Args:
        run: its model, target, method, size and seed.
    """
    common = rng.normal(size=(N, 4))
    arrays = {}
    for number, name in enumerate(FEATURES, start=1):
        noise = rng.normal(size=(N, 4))
        arrays[name] = (common + noise * number / 4).astype(np.float32)
    for network in ("before", "after"):
        arrays[f"residual_{network}"] = rng.random(N).astype(np.float32)
    path = folder.joinpath(*(str(name) for name in run.values()))
    path.mkdir(parents=True)
    job = StirJob(run, path / "t.safetensors", path / "t.parquet", arrays)
    safetensors.numpy.save_file(arrays, job.features)
    pd.DataFrame({"object_id": OBJECTS, "more": 1}).to_parquet(job.index)
    return job


@pytest.fixture
def jobs(tmp_path):
    """What the jobs of two runs have stored."""
    rng = np.random.default_rng(0)
    runs = [
        {"model": "m", "target": "t", "method": "ft", "size": "10", "seed": 2},
        {"model": "n", "target": "u", "method": "lwf", "size": "all", "seed": 0},
    ]
    return [stored_job(tmp_path, run, rng) for run in runs]


def table_of(jobs, path):
    """The table of STIR of some jobs, written to a file and read again."""
    write(
        stir_table,
        features=iter([job.features for job in jobs]),
        indexes=iter([job.index for job in jobs]),
        table=path,
        conditions="c",
        **SETTINGS,
    )
    return pd.read_csv(path, dtype={"size": str})


def numbers_by_hand(arrays, inverted_network, other_network):
    """The numbers of a row of the table, from features and residuals of its run.

    Args:
        inverted_network, other_network: `before` and `after`, or the other way round.
    """

    def cka_values(name, other_name):
        """CKA of two sets of features, of all images and without those of each object."""
        objects = np.array(OBJECTS)
        kernel = Kernel.of(arrays[name], objects, "t")
        other_kernel = Kernel.of(arrays[other_name], objects, "t")
        return cka(kernel, other_kernel)

    inversions = f"inverted_{inverted_network}"
    stir = cka_values(f"{other_network}.images", f"{other_network}.{inversions}")
    fidelity = cka_values(f"{inverted_network}.images", f"{inverted_network}.{inversions}")
    of_images = cka_values("before.images", "after.images")
    stir_of_all_images, *_ = stir
    fidelity_of_all_images, *_ = fidelity
    cka_of_all_images, *_ = of_images
    stir_low, stir_high = jackknife_interval(stir, 0.9)
    cka_low, cka_high = jackknife_interval(of_images, 0.9)
    return {
        "stir": stir_of_all_images,
        "ci_low": stir_low,
        "ci_high": stir_high,
        "cka": cka_of_all_images,
        "cka_low": cka_low,
        "cka_high": cka_high,
        "fidelity": fidelity_of_all_images,
        "residual": arrays[f"residual_{inverted_network}"].mean(),
        "passes": N * SETTINGS["steps"],
    }


def test_every_number_of_the_table_is_that_of_its_features(jobs, tmp_path):
    """Random features of two runs, with two images of some objects.

    Each reference has its own inversions and residuals.
    """
    table = table_of(jobs, tmp_path / "stir.csv")
    assert len(table) == 2 * len(jobs)
    rows_of_pretrained = table[table["reference"] == "pretrained"].to_dict("records")
    rows_of_tuned = table[table["reference"] == "fine-tuned"].to_dict("records")
    for job, of_pretrained, of_tuned in zip(jobs, rows_of_pretrained, rows_of_tuned, strict=True):
        for row in (of_pretrained, of_tuned):
            described = {"dataset": "t", "layer": "stage4", "n": N, "conditions": "c"}
            expected = {**job.run, **described}
            assert {name: row[name] for name in expected} == expected
        expected_of_pretrained = numbers_by_hand(job.arrays, "before", "after")
        expected_of_tuned = numbers_by_hand(job.arrays, "after", "before")
        numbers_of_pretrained = {name: of_pretrained[name] for name in expected_of_pretrained}
        numbers_of_tuned = {name: of_tuned[name] for name in expected_of_tuned}
        assert numbers_of_pretrained == pytest.approx(expected_of_pretrained, abs=1e-6)
        assert numbers_of_tuned == pytest.approx(expected_of_tuned, abs=1e-6)


def test_too_few_images_are_refused(jobs, tmp_path):
    # given
    job, _ = jobs
    of_four_images = {name: array[:4] for name, array in job.arrays.items()}
    safetensors.numpy.save_file(of_four_images, job.features)
    pd.DataFrame({"object_id": OBJECTS[:4]}).to_parquet(job.index)
    # then
    with pytest.raises(UserError, match=r"^t: .*4 images"):
        table_of([job], tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_no_table_is_made_without_a_fine_tuned_run(tmp_path):
    with pytest.raises(UserError, match="no fine-tuned run"):
        table_of([], tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()

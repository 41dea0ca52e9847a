"""Merges and ensembles that are computed on loading.

Each is compared with its equation in plain loops; what must hold for all is tested, too.
"""

import copy
import hashlib
import itertools
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from peft.utils import merge_utils
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.base.plugins import LIBRARY
from rib.data.view import DatasetFiles
from rib.evaluation.compute_fisher import compute_fisher
from rib.evaluation.evaluation_settings import FisherSettings, MergeSettings
from rib.evaluation.networks import (
    NetworkState,
    RunNetworks,
    merged_states,
    mixture_of_run,
    states_as_json,
    states_from_json,
)
from rib.methods import dare, dawin, task_arithmetic, ties
from rib.methods.base import Task
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.output_ensemble import OutputEnsemble
from rib.models.checkpoint import StatesToMerge, apply, xor_compress
from rib.models.images import Images
from rib.models.merge import Merge
from rib.models.network import load
from rib.models.state import network_in_state
from rib.schema.run import Run
from rib.training.loop import train
from tiny.changed import replace
from tiny.models.training import (
    CODE,
    COMPUTE,
    CPU,
    MEAN,
    OF_CPU,
    STD,
    TRAINING,
    VIEW,
    model_folder,
    normalised,
    prepared_folder,
    random_images,
    resnet,
    rows_of,
    split_file,
    with_defaults,
)

RUN = "m/t/x/all/0"
SETTINGS = {
    "model_stock": {},
    "ties": {"density": 0.3, "scaling": 0.8},
    "dare": {"density": 0.6, "scaling": 0.4},
    "fisher": {"fisher_images": 5},
}


def file_of(name):
    return LIBRARY / f"methods/{name}.py"


@pytest.fixture(scope="module")
def network():
    """49 parameters, and the statistics of a BatchNorm."""
    torch.manual_seed(0)
    layers = OrderedDict(a=nn.Linear(3, 4), norm=nn.BatchNorm1d(4), b=nn.Linear(4, 5))
    network = nn.Sequential(layers).eval()
    network.b.bias.data[2] = 0.0
    return network


def parameters_of(network):
    """Names of a network's parameters."""
    return [name for name, _ in network.named_parameters()]


def moved(network, seed, scale=0.1):
    """State of a fine-tuned network: every parameter has moved."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in parameters_of(network):
        state[name] += scale * torch.randn(state[name].shape, generator=generator)
    return state


def moved_states(network, names, scale=0.1):
    """States of fine-tuned networks, by name; the seeds are 0, 1, ..."""
    return {name: moved(network, seed, scale) for seed, name in enumerate(names)}


@pytest.fixture
def merge(network, tmp_path):
    """Merges states of the network by an algorithm; the merged state dict, or the ensemble."""

    def merged(name, states, fisher=None, run=RUN, form="merge", **settings):
        start = network.state_dict()
        checkpoints = {}
        for parent, state in states.items():
            checkpoints[parent] = tmp_path / f"{parent}.safetensors"
            safetensors.torch.save_file(xor_compress(state, start), checkpoints[parent])
        fisher_files = {}
        for parent, fisher_of_parent in (fisher or {}).items():
            fisher_files[parent] = tmp_path / f"{parent}_fisher.safetensors"
            safetensors.torch.save_file(fisher_of_parent, fisher_files[parent])
        merge = Merge(
            form=form,
            algorithm=file_of(name),
            settings={**SETTINGS.get(name, {}), **settings},
            parents=list(states),
            run=run,
            fisher=fisher_files,
        )
        merged_network = apply(copy.deepcopy(network), merge, checkpoints)
        if form == "ensemble":
            return merged_network.eval()
        return merged_network.state_dict()

    return merged


def flat(network, state):
    """All parameters as one list of numbers."""
    numbers = []
    for name in parameters_of(network):
        numbers += state[name].flatten().tolist()
    return numbers


def information(network, seed):
    """Fisher information, with values that are 0."""
    generator = torch.Generator().manual_seed(seed)
    fisher = {}
    for name, parameter in network.named_parameters():
        drawn = torch.rand(parameter.shape, generator=generator)
        fisher[name] = drawn * (drawn > 0.3)
    return fisher


def trimmed_update(start, tuned, density):
    """Update of a flat vector, of which the largest values are kept and the others are 0."""
    update = [after - before for before, after in zip(start, tuned, strict=True)]

    def size(i):
        return abs(update[i])

    largest_first = sorted(range(len(update)), key=size, reverse=True)
    largest = largest_first[: int(density * len(update))]
    return [change if i in largest else 0.0 for i, change in enumerate(update)]


def test_ties_trims_the_whole_vector_elects_signs_and_averages_those_that_agree(network, merge):
    states = {
        "p": moved(network, seed=1),
        "q": moved(network, seed=2),
        "r": moved(network, seed=3),
    }

    merged_state = merge("ties", states, density=0.3, scaling=0.8)

    start = flat(network, network.state_dict())
    trimmed = [trimmed_update(start, flat(network, state), 0.3) for state in states.values()]
    updates_of_numbers = list(zip(*trimmed, strict=True))
    patterns_of_signs = {tuple(np.sign(updates)) for updates in updates_of_numbers}
    assert len(patterns_of_signs) > 6  # with conflicts and zeros
    expected = []
    for before, updates in zip(start, updates_of_numbers, strict=True):
        sign = np.sign(sum(updates))
        agreeing = [update for update in updates if update and np.sign(update) == sign]
        expected.append(before + 0.8 * sum(agreeing) / max(1, len(agreeing)))
    np.testing.assert_allclose(flat(network, merged_state), expected, rtol=1e-6, atol=1e-7)


def test_ties_leaves_a_value_whose_updates_cancel(network, merge):
    bias = network.state_dict()["b.bias"]
    states = {"p": {"b.bias": bias + 0.5}, "q": {"b.bias": bias - 0.5}}
    merged_state = merge("ties", states, density=1.0)
    assert torch.equal(merged_state["b.bias"][2], bias[2])


def test_a_share_below_one_value_keeps_the_largest_update_and_one_above_all_changed_ones(
    network, merge
):
    bias = network.state_dict()["b.bias"]
    tuned_bias = bias + torch.tensor([0.1, -0.4, 0.2, 0.0, 0.3])
    states = {"p": {"b.bias": tuned_bias}}

    with_least = merge("ties", states, density=1e-6, scaling=1.0)
    with_all = merge("ties", states, density=0.2, scaling=1.0)

    largest_update = torch.tensor([0.0, -0.4, 0.0, 0.0, 0.0])
    torch.testing.assert_close(with_least["b.bias"] - bias, largest_update)
    torch.testing.assert_close(with_all["b.bias"], tuned_bias)


def cosine(vector, other_vector):
    """Cosine of the angle between two lists of numbers."""
    product = sum(a * b for a, b in zip(vector, other_vector, strict=True))
    return product / math.hypot(*vector) / math.hypot(*other_vector)


def test_model_stocks_ratio_comes_from_the_mean_cosine_of_each_layer(network, merge):
    """Updates with a common direction, so that cosines are neither 0 nor 1."""
    start = network.state_dict()
    in_common_direction = moved(network, seed=9)
    states = {}
    for parent, seed in {"p": 1, "q": 2, "r": 3}.items():
        states[parent] = moved(network, seed)
        for name in start:
            if start[name].is_floating_point():
                states[parent][name] += in_common_direction[name] - start[name]

    merged_state = merge("model_stock", states)

    ratios = []
    for name in parameters_of(network):
        before = start[name].flatten().tolist()
        tuned = [state[name].flatten().tolist() for state in states.values()]
        updates = [
            (state[name] - start[name]).flatten().double().tolist() for state in states.values()
        ]
        cosines = [
            cosine(update, other_update)
            for update, other_update in itertools.combinations(updates, 2)
        ]
        mean_cosine = sum(cosines) / 3
        ratio = 3 * mean_cosine / (1 + 2 * mean_cosine)
        ratios.append(ratio)
        mean_of_tuned = [sum(numbers) / 3 for numbers in zip(*tuned, strict=True)]
        expected = [
            ratio * mean + (1 - ratio) * number
            for mean, number in zip(mean_of_tuned, before, strict=True)
        ]
        merged_numbers = merged_state[name].flatten().tolist()
        np.testing.assert_allclose(merged_numbers, expected, rtol=1e-5, atol=1e-6)
    assert len(set(ratios)) == len(ratios)
    assert min(ratios) > 0.2
    assert max(ratios) < 0.98


@pytest.mark.parametrize("other_update", [[0, 1.0, 0, 0, 0], [-0.5, 0, 0, 0, 0], [0.0] * 5])
def test_model_stock_of_orthogonal_or_opposite_updates_is_the_pretrained_model(
    network, merge, other_update
):
    start = network.state_dict()
    bias = start["b.bias"]
    update = torch.tensor([1.0, 0, 0, 0, 0])
    states = {
        "p": {"b.bias": bias + update},
        "q": {"b.bias": bias + torch.tensor(other_update), "a.bias": start["a.bias"]},
    }
    assert torch.equal(merge("model_stock", states)["b.bias"], bias)


def dare_numbers(parent, name, shape):
    """Random numbers that decide which updates of a tensor are kept."""
    digest = hashlib.sha256(f"{RUN}/{parent}/{name}".encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_dare_keeps_rescaled_updates_and_adds_them_up(network, merge):
    states = moved_states(network, "pq")

    merged_state = merge("dare", states, density=0.6, scaling=0.4)

    start = network.state_dict()
    is_kept = []
    for name in parameters_of(network):
        before = start[name].flatten().tolist()
        expected = list(before)
        for parent, state in states.items():
            drawn = dare_numbers(parent, name, start[name].shape).flatten().tolist()
            tuned = state[name].flatten().tolist()
            for i in range(len(before)):
                is_kept.append(drawn[i] < 0.6)
                if drawn[i] < 0.6:
                    expected[i] += 0.4 * (tuned[i] - before[i]) / 0.6
        torch.testing.assert_close(merged_state[name].flatten(), torch.tensor(expected))
    assert 0.4 < np.mean(is_kept) < 0.8


def test_dares_masks_depend_on_run_and_parent_alone(network, merge):
    start = network.state_dict()
    states = moved_states(network, "pq")

    merged_state = merge("dare", {"p": states["p"], "q": states["q"]})
    in_other_order = merge("dare", {"q": states["q"], "p": states["p"]})
    for name in parameters_of(network):
        torch.testing.assert_close(merged_state[name], in_other_order[name], rtol=1e-6, atol=1e-7)

    merged_as_p = merge("dare", {"p": states["p"]})
    merged_as_q = merge("dare", {"q": states["p"]})
    merged_in_other_run = merge("dare", {"p": states["p"]}, run="m/t/x/all/1")
    assert not torch.equal(merged_as_p["a.weight"], merged_as_q["a.weight"])
    assert not torch.equal(merged_as_p["a.weight"], merged_in_other_run["a.weight"])

    # other tensors draw nothing from its numbers
    one_tensor = merge("dare", {"p": {"b.weight": states["p"]["b.weight"]}})
    assert torch.equal(one_tensor["b.weight"], merged_as_p["b.weight"])
    assert torch.equal(one_tensor["a.bias"], start["a.bias"])


def test_fisher_merging_weights_each_value_by_its_information(network, merge):
    states = moved_states(network, "pq")
    fisher = {"p": information(network, seed=7), "q": information(network, seed=8)}

    merged_state = merge("fisher", states, fisher)

    merged_numbers = flat(network, merged_state)
    tuned_p = flat(network, states["p"])
    tuned_q = flat(network, states["q"])
    fisher_p = flat(network, fisher["p"])
    fisher_q = flat(network, fisher["q"])
    without_information = 0
    for i, number in enumerate(merged_numbers):
        weight_p = fisher_p[i]
        weight_q = fisher_q[i]
        if weight_p == weight_q == 0:
            without_information += 1
            weight_p = 1.0
            weight_q = 1.0
        expected = (weight_p * tuned_p[i] + weight_q * tuned_q[i]) / (weight_p + weight_q)
        assert number == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert without_information > 0


def fisher_for(name, network, parents):
    """Fisher information of each parent, if an algorithm takes it."""
    if name != "fisher":
        return None
    return {parent: information(network, seed) for seed, parent in enumerate(parents)}


@pytest.mark.parametrize("name", ["model_stock", "fisher"])
def test_the_average_of_equal_states_is_that_state(network, merge, name):
    state = moved(network, 3)
    state["b.bias"][0] = 0.0
    states = dict.fromkeys("pqr", state)
    merged_state = merge(name, states, fisher_for(name, network, "pqr"))
    for tensor_name, tensor in state.items():
        assert torch.equal(merged_state[tensor_name], tensor)


@pytest.mark.parametrize("name", ["model_stock", "ties", "dare", "fisher"])
def test_buffers_are_averaged_and_counters_keep_the_highest(network, merge, name):
    """No running variance may be dropped, rescaled or become negative."""
    states = moved_states(network, "pq")
    for batches, state in enumerate(states.values(), start=1):
        state["norm.running_var"] = torch.full((4,), batches / 10)
        state["norm.num_batches_tracked"] = torch.tensor(batches)
    merged_state = merge(name, states, fisher_for(name, network, "pq"))
    torch.testing.assert_close(merged_state["norm.running_var"], torch.full((4,), 0.15))
    assert merged_state["norm.num_batches_tracked"] == 2


def merged_by_peft(function, states, start, weight, **settings):
    """The tensor a.weight, merged by a function of peft with the same weight for each state."""
    updates = [state["a.weight"] - start["a.weight"] for state in states.values()]
    weights = torch.full((len(updates),), weight)
    return start["a.weight"] + function(updates, weights, **settings)


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("density", [0.25, 1.0])
def test_peft_agrees(density):
    """On a network of one tensor, since peft trims each tensor for itself."""
    torch.manual_seed(0)
    start = {"a.weight": torch.randn(6, 8)}
    states = {parent: {"a.weight": start["a.weight"] + torch.randn(6, 8)} for parent in "pqr"}
    states_to_merge = StatesToMerge(start, states, ["a.weight"], 48, RUN)

    by_ties = dict(ties.merge(states_to_merge, density=density, scaling=0.7))["a.weight"]
    expected = merged_by_peft(merge_utils.ties, states, start, weight=0.7, density=density)
    torch.testing.assert_close(by_ties, expected)

    coefficients = task_arithmetic.coefficients("pqr", scaling=0.4)
    by_task_arithmetic = coefficients["pretrained"] * start["a.weight"]
    for parent, state in states.items():
        by_task_arithmetic = by_task_arithmetic + coefficients[parent] * state["a.weight"]
    expected = merged_by_peft(merge_utils.task_arithmetic, states, start, weight=0.4)
    torch.testing.assert_close(by_task_arithmetic, expected)

    by_dare = dict(dare.merge(states_to_merge, density=1.0, scaling=0.4))["a.weight"]
    expected = merged_by_peft(merge_utils.dare_linear, states, start, weight=0.4, density=1.0)
    torch.testing.assert_close(by_dare, expected)

    one_state = {"p": states["p"]}  # TIES of it is the trimming alone
    one_to_merge = replace(states_to_merge, changes=one_state)
    trimmed = dict(ties.merge(one_to_merge, density=density, scaling=1.0))["a.weight"]
    expected = merged_by_peft(
        merge_utils.magnitude_prune, one_state, start, weight=1.0, density=density
    )
    torch.testing.assert_close(trimmed, expected)


IMAGES = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))


def probabilities(network, state, images):
    """Probabilities (images, classes) that the network has in a state."""
    network_in_state = copy.deepcopy(network)
    network_in_state.load_state_dict(state)
    with torch.no_grad():
        return network_in_state(images).double().softmax(dim=1)


def test_an_ensemble_of_outputs_gives_the_logarithm_of_the_mean_probability(network, merge):
    start = network.state_dict()
    states = moved_states(network, "pq", scale=1.0)

    ensemble = merge("output_ensemble", states, form="ensemble")
    of_equal_networks = merge("output_ensemble", dict.fromkeys("pq", start), form="ensemble")

    of_networks = [probabilities(network, state, IMAGES) for state in (start, *states.values())]
    mean_probability = sum(of_networks) / 3
    with torch.no_grad():
        torch.testing.assert_close(ensemble(IMAGES).exp(), mean_probability.float())
        log_probability = network(IMAGES).double().log_softmax(dim=1)
        assert torch.equal(of_equal_networks(IMAGES), log_probability.float())


def test_an_ensembles_outputs_are_finite_where_probabilities_are_not():
    sure = nn.Linear(1, 2)
    sure.weight.data = torch.tensor([[0.0], [0.0]])
    sure.bias.data = torch.tensor([0.0, 900.0])
    assert OutputEnsemble({"a": sure, "b": sure})(torch.ones(1, 1)).isfinite().all()


def dawin_coefficients(network, states, image):
    """Weight of each state for an image (3,): exp(-entropy) of its prediction, as a share."""
    confidences = []
    for state in states:
        of_classes = probabilities(network, state, image[None])[0].tolist()
        entropy = -sum(p * math.log(p) for p in of_classes)
        confidences.append(math.exp(-entropy))
    return [confidence / sum(confidences) for confidence in confidences]


def averaged(states, coefficients):
    """Weighted mean of states; what is no floating-point number is that of the first."""
    mean = dict(states[0])
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            mean[name] = sum(
                coefficient * state[name]
                for coefficient, state in zip(coefficients, states, strict=True)
            )
    return mean


def test_dawin_averages_the_weights_for_each_image_by_its_entropies(network, merge):
    start = network.state_dict()
    parents = moved_states(network, "pq", scale=1.0)

    ensemble = merge("dawin", parents, form="ensemble")
    with torch.no_grad():
        coefficients = ensemble.coefficients(IMAGES).T
        logits = ensemble(IMAGES)
        logits_of_image_alone = ensemble(IMAGES[2:3])[0]

    states = [start, *parents.values()]
    expected_coefficients = [dawin_coefficients(network, states, image) for image in IMAGES]
    torch.testing.assert_close(
        coefficients, torch.tensor(expected_coefficients), rtol=1e-4, atol=1e-6
    )
    coefficients_of_pretrained = [of_pretrained for of_pretrained, *_ in expected_coefficients]
    assert np.ptp(coefficients_of_pretrained) > 0.05
    for image, coefficients_of_image, logits_of_image in zip(
        IMAGES, expected_coefficients, logits, strict=True
    ):
        network_for_image = copy.deepcopy(network)
        network_for_image.load_state_dict(averaged(states, coefficients_of_image))
        expected = network_for_image(image[None])[0]
        torch.testing.assert_close(logits_of_image, expected, rtol=1e-4, atol=1e-5)
    # whatever else is in the batch
    torch.testing.assert_close(logits_of_image_alone, logits[2], rtol=1e-6, atol=1e-6)
    state_in_ensemble = ensemble.networks[0].state_dict()
    for name, tensor in start.items():
        assert torch.equal(state_in_ensemble[name], tensor)  # left as it was


def test_dawin_of_equal_networks_is_that_network(network, merge):
    start = network.state_dict()
    ensemble = merge("dawin", dict.fromkeys("pq", start), form="ensemble")
    with_other_bias = merge("dawin", {"p": {"b.bias": start["b.bias"] + 1}}, form="ensemble")
    with torch.no_grad():
        logits_of_network = torch.cat([network(image[None]) for image in IMAGES])
        assert torch.equal(ensemble(IMAGES), logits_of_network)
    assert ensemble.averaged_names == []
    assert with_other_bias.averaged_names == ["b.bias"]


def test_dawin_averages_what_only_one_of_its_parents_has_changed(network, merge):
    # given: parents that have changed a tensor each
    start = network.state_dict()
    parents = {"p": {"b.bias": start["b.bias"] + 1}, "q": {"b.weight": start["b.weight"] * 2}}
    # when
    ensemble = merge("dawin", parents, form="ensemble")
    with torch.no_grad():
        coefficients = ensemble.coefficients(IMAGES).T.tolist()
        logits = ensemble(IMAGES)
    # then: each of them is the average for the image, of which the pretrained network has its share
    assert sorted(ensemble.averaged_names) == ["b.bias", "b.weight"]
    for image, (_, coefficient_p, coefficient_q), logits_of_image in zip(
        IMAGES, coefficients, logits, strict=True
    ):
        network_for_image = copy.deepcopy(network)
        with torch.no_grad():
            network_for_image.get_parameter("b.bias").add_(coefficient_p)
            network_for_image.get_parameter("b.weight").mul_(1 + coefficient_q)
            expected = network_for_image(image[None])[0]
        torch.testing.assert_close(logits_of_image, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_merged_is_refused_in_a_sentence(network, merge):
    tuned = moved(network, 1)
    prompt = {
        f"padding_prompt.{side}": torch.ones(3, 1, 1) for side in ("top", "bottom", "left", "right")
    }
    with pytest.raises(UserError, match=r"^model_stock\.py: .* two parents"):
        merge("model_stock", {"p": tuned})
    prompt_is_no_weights = "^'vp' trains a padding prompt"
    with pytest.raises(UserError, match=prompt_is_no_weights):
        merge("ties", {"p": tuned, "vp": prompt})
    with pytest.raises(UserError, match=prompt_is_no_weights):
        merge("ties", {"vp": prompt})
    with pytest.raises(UserError, match=r"^dawin\.py: .* padding prompt"):
        merge("dawin", {"p": tuned, "vp": prompt}, form="ensemble")
    with pytest.raises(ValueError, match="'other' that the network lacks"):
        merge("dare", {"p": {"other": torch.ones(1)}})


@pytest.mark.parametrize("form", ["merge", "ensemble"])
def test_a_manifest_names_the_algorithm_of_a_merge_and_no_file(tmp_path, form):
    settings = {"density": 0.5}
    parents = ["ft, seed 1"]
    algorithm = str(tmp_path / "mine.py")
    Path(algorithm).write_text(f"def {form}(states, *, density: float): ...\n")
    merge = MergeSettings(form=form, algorithm=algorithm, settings={"x": settings})
    run = Run("m", "t", "x", "all", 3)

    (state,) = merged_states(run, parents, merge, [tmp_path / "f"])

    made_of = {"form": form, "settings": settings, "parents": parents, "run": str(run)}
    assert state.mixture == Merge(
        algorithm=algorithm, fisher={"ft, seed 1": tmp_path / "f"}, **made_of
    )
    stored = states_as_json([state])
    assert stored == [{"method": "x", "alpha": None, "merge": {**made_of, "algorithm": "mine"}}]
    assert states_from_json(stored) == [("x", None, Merge(algorithm="mine", **made_of))]


def fisher_settings(**settings):
    """Settings of a job that computes Fisher information."""
    return FisherSettings(
        view=VIEW, evaluation_batch_size=4, compute=COMPUTE, code=CODE, **settings
    )


def test_fisher_information_is_that_of_the_runs_own_training_images(tmp_path):
    # given: a run that has changed the head, and a split of the target
    network = resnet(40)
    dataset = random_images(20, 32, seed=1)
    tuned = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    tuned.fc.weight.data += 0.1 * torch.randn(tuned.fc.weight.shape, generator=generator)
    checkpoint = tmp_path / "ft.safetensors"
    safetensors.torch.save_file({"fc.weight": tuned.fc.weight.detach()}, checkpoint)
    networks = RunNetworks(
        model_folder(tmp_path / "model", network),
        [NetworkState("ft", None, {"ft": 1.0})],
        {"ft": checkpoint},
    )
    target = prepared_folder(tmp_path / "set", dataset)
    split = split_file(tmp_path / "split.parquet", 20)
    # when
    compute_fisher(
        run=Run("m", "t", "ft", "all", 4),
        networks=networks,
        dataset=DatasetFiles("t", target, split=split),
        settings=fisher_settings(fisher_images=3),
        fisher=tmp_path / "fisher.safetensors",
        manifest=tmp_path / "manifest.json",
    )
    # then: it is the mean square of the gradients of three labels, drawn as the network predicts
    training_rows = rows_of("train", 20)
    assert len(training_rows) < 20
    positions = np.linspace(0, len(training_rows) - 1, 3).round().astype(int)
    label_generator = torch.Generator().manual_seed(4)
    expected = {name: torch.zeros_like(parameter) for name, parameter in tuned.named_parameters()}
    for position in positions:
        image = dataset.images[[training_rows[position]]]
        log_probabilities = tuned(normalised(image, MEAN, STD)).log_softmax(dim=1)[0]
        of_classes = log_probabilities.detach().exp()
        label = int(torch.multinomial(of_classes, 1, generator=label_generator))
        gradients = torch.autograd.grad(log_probabilities[label], list(tuned.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient**2 / 3
    fisher = safetensors.torch.load_file(tmp_path / "fisher.safetensors")
    assert fisher.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(fisher[name], expected[name], rtol=1e-3, atol=1e-7)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest == {**OF_CPU, "n": len(training_rows)}


def images_of(dataset):
    """What a method sees of a dataset, with the model's own normalisation."""
    return Images(dataset, {"mean": MEAN, "std": STD}, CPU)


@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_ewc_with_fisher_information_from_a_job_of_its_own_trains_to_the_same_bytes(tmp_path, kind):
    # Given: the pretrained model's Fisher information on a pretraining proxy, as a job computes and
    # stores it
    folder = model_folder(tmp_path / "model", resnet(40))
    network, _ = load(folder, CPU)
    proxy = random_images(12, 32, seed=1)
    target = random_images(10, 32, seed=2)
    files = DatasetFiles("reference", prepared_folder(tmp_path / "proxy", proxy))
    run = Run("m", "none", "pretrained", "all", 4)
    states = [NetworkState("pretrained", None, {"pretrained": 1.0})]
    stored = tmp_path / "fisher.safetensors"
    compute_fisher(
        run=run,
        networks=RunNetworks(folder, states, checkpoints={}),
        dataset=files,
        settings=fisher_settings(fisher_images=5, kind=kind),
        fisher=stored,
        manifest=tmp_path / "manifest.json",
    )

    # When: EWC computes it itself, and when it gets it and has no proxy
    def train_ewc(reference, fisher):
        algorithm = with_defaults(
            ElasticWeightConsolidation, lr=0.01, weight=10.0, fisher=kind, fisher_images=5
        )
        task = Task(copy.deepcopy(network), images_of(target), reference, 4, fisher=fisher)
        algorithm.setup(task)
        run = Run("m", "t", "x", "all", 4)
        trained = train(algorithm, network.state_dict(), TRAINING, run, CPU)
        return trained.history, trained.changed

    history, tensors = train_ewc(images_of(proxy), None)
    _, tensors_with_stored = train_ewc(None, safetensors.torch.load_file(stored))
    # Then: the weights are the same, bit by bit, and others than without a penalty
    assert tensors.keys() == tensors_with_stored.keys()
    for name in tensors:
        assert torch.equal(tensors[name], tensors_with_stored[name])
    assert history[-1]["loss"] > history[-1]["cross_entropy"]


def batch_norms(network):
    """The BatchNorms of a network, which are gone when it is fused."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_merge_is_fused_for_evaluation_and_an_ensemble_is_not_and_has_no_single_state(tmp_path):
    network = resnet(7)
    folder = model_folder(tmp_path / "model", network)
    checkpoints = {"p": tmp_path / "p.safetensors"}
    safetensors.torch.save_file({"fc.bias": network.fc.bias.detach() + 1}, checkpoints["p"])
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    merge = Merge("merge", file_of("ties"), {"density": 1.0, "scaling": 1.0}, ["p"], RUN)
    ensemble = Merge("ensemble", file_of("dawin"), {}, ["p"], RUN)

    merged_network = network_in_state(folder, merge, checkpoints, images)
    networks = network_in_state(folder, ensemble, checkpoints, images)

    assert not batch_norms(merged_network)
    with torch.inference_mode():
        expected = network(images) + 1
        torch.testing.assert_close(merged_network(images), expected, rtol=1e-4, atol=1e-4)
    assert isinstance(networks, dawin.DaWin)
    assert not networks.training
    assert batch_norms(networks)

    run = Run("m", "t", "ties", "all", 4)
    assert mixture_of_run(run, [NetworkState("ties", None, merge)]) is merge
    with pytest.raises(UserError, match="an ensemble has several networks"):
        mixture_of_run(run, [NetworkState("dawin", None, ensemble)])

"""Merges and ensembles that are computed on loading.

Each is compared with its equation in plain loops; what must hold for all is tested, too.
"""

import copy
import hashlib
import itertools
import math
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from peft.utils import merge_utils
from torch import nn

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.config.catalog import Catalog
from rib.config.grid import resolve_grid
from rib.config.run import Run
from rib.config.schema import validated
from rib.config.settings import LIBRARY, constant, takes_fisher
from rib.data.view import DatasetFiles
from rib.evaluation.fisher import compute_fisher
from rib.evaluation.recipes import State, run_states, write_recipe
from rib.evaluation.run_on_dataset import RunOnDataset
from rib.evaluation.settings import MergeSettings
from rib.methods import dare, dawin, task_arithmetic, ties
from rib.methods.base import Task
from rib.methods.ewc import ElasticWeightConsolidation
from rib.methods.output_ensemble import OutputEnsemble
from rib.models.checkpoint import States, apply, read_tensors, xor_compress
from rib.models.class_logits import class_members
from rib.models.inputs import Images, Inputs
from rib.models.merge import Merge
from rib.models.network import load
from rib.models.state import network_in_state
from rib.training.finetune import train
from tiny.changed import replace
from tiny.training import (
    CODE,
    COMPUTE,
    CPU,
    MEAN,
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


def moved(network, seed, scale=0.1):
    """State of a fine-tuned network: every parameter has moved."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, _ in network.named_parameters():
        state[name] += scale * torch.randn(state[name].shape, generator=generator)
    return state


@pytest.fixture
def merge(network, tmp_path):
    """Merges states of the network by an algorithm; the merged state dict, or the ensemble."""

    def merged(name, states, fisher=None, run=RUN, form="merge", **settings):
        start, files = network.state_dict(), {}
        for part, tensors in {
            **states,
            **{f"{key} fisher": own for key, own in (fisher or {}).items()},
        }.items():
            files[part] = tmp_path / f"{part.replace(' ', '_')}.safetensors"
            safetensors.torch.save_file(
                tensors if part in (fisher or {}) else xor_compress(tensors, start), files[part]
            )
        made = {key: files[f"{key} fisher"] for key in fisher or {}}
        how = Merge(
            form, file_of(name), {**SETTINGS.get(name, {}), **settings}, list(states), run, made
        )
        found = apply(copy.deepcopy(network), how, {key: files[key] for key in states})
        return found.eval() if form == "ensemble" else found.state_dict()

    return merged


def flat(network, state):
    """All parameters as one list of numbers."""
    return [
        value for name, _ in network.named_parameters() for value in state[name].flatten().tolist()
    ]


def information(network, seed):
    """Fisher information, with values that are 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.rand(part.shape, generator=generator)
        for name, part in network.named_parameters()
    }
    return {name: part * (part > 0.3) for name, part in drawn.items()}


def test_ties_trims_the_whole_vector_elects_signs_and_averages_those_that_agree(network, merge):
    states = {name: moved(network, seed) for seed, name in enumerate("pqr", start=1)}
    start, density, scaling = flat(network, network.state_dict()), 0.3, 0.8
    trimmed = []
    for state in states.values():
        update = [b - a for a, b in zip(start, flat(network, state), strict=True)]
        kept = sorted(range(len(update)), key=lambda i, update=update: -abs(update[i]))[
            : int(density * len(update))
        ]
        trimmed.append([value if i in kept else 0.0 for i, value in enumerate(update)])
    expected = []
    for value, *updates in zip(start, *trimmed, strict=True):
        sign = np.sign(sum(updates))
        agree = [update for update in updates if update and np.sign(update) == sign]
        expected.append(value + scaling * sum(agree) / max(1, len(agree)))
    assert (
        len({tuple(np.sign(updates)) for updates in zip(*trimmed, strict=True)}) > 6
    )  # with conflicts and zeros
    np.testing.assert_allclose(flat(network, merge("ties", states)), expected, rtol=1e-6, atol=1e-7)


def test_ties_of_everything_without_conflicts_is_the_mean_of_the_task_vectors(network, merge):
    start = network.state_dict()
    names = [name for name, _ in network.named_parameters()]
    signs = {name: (moved(network, 1)[name] - start[name]).sign() for name in names}
    states = {}
    for seed, key in enumerate("pq", start=2):
        size = {name: (moved(network, seed)[name] - start[name]).abs() + 0.01 for name in names}
        states[key] = {name: start[name] + signs[name] * size[name] for name in names}
    found = merge("ties", states, density=1.0, scaling=1.0)
    for name in names:
        torch.testing.assert_close(found[name], (states["p"][name] + states["q"][name]) / 2)


def test_ties_leaves_a_value_whose_updates_cancel(network, merge):
    start = network.state_dict()
    up, down = ({"b.bias": start["b.bias"] + step} for step in (0.5, -0.5))
    assert torch.equal(
        merge("ties", {"p": up, "q": down}, density=1.0)["b.bias"][2], start["b.bias"][2]
    )


def test_a_share_below_one_value_keeps_the_largest_update_and_one_above_all_changed_ones(
    network, merge
):
    start = network.state_dict()
    tuned = {"b.bias": start["b.bias"] + torch.tensor([0.1, -0.4, 0.2, 0.0, 0.3])}
    found = merge("ties", {"p": tuned}, density=1e-6, scaling=1.0)["b.bias"] - start["b.bias"]
    torch.testing.assert_close(found, torch.tensor([0.0, -0.4, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(
        merge("ties", {"p": tuned}, density=0.2, scaling=1.0)["b.bias"], tuned["b.bias"]
    )


def test_model_stocks_ratio_comes_from_the_mean_cosine_of_each_layer(network, merge):
    """Updates with a common direction, so that cosines are neither 0 nor 1."""
    start, shared = network.state_dict(), moved(network, 9)
    states = {}
    for seed, key in enumerate("pqr", start=1):
        own = moved(network, seed)
        states[key] = {
            name: own[name] + shared[name] - start[name]
            if own[name].is_floating_point()
            else own[name]
            for name in own
        }
    found, ratios = merge("model_stock", states), []
    for name, _ in network.named_parameters():
        before = start[name].flatten().tolist()
        tuned = [state[name].flatten().tolist() for state in states.values()]
        updates = [[b - a for a, b in zip(before, values, strict=True)] for values in tuned]
        cosines = [
            sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)
            for u, v in itertools.combinations(updates, 2)
        ]
        cosine = sum(cosines) / 3
        ratios.append(3 * cosine / (1 + 2 * cosine))
        expected = [
            ratios[-1] * sum(values) / 3 + (1 - ratios[-1]) * a
            for a, *values in zip(before, *tuned, strict=True)
        ]
        np.testing.assert_allclose(found[name].flatten().tolist(), expected, rtol=1e-5, atol=1e-6)
    assert len(set(ratios)) == len(ratios) and 0.2 < min(ratios) < max(ratios) < 0.98


def test_model_stock_of_orthogonal_or_opposite_updates_is_the_pretrained_model(network, merge):
    start = network.state_dict()
    bias = start["b.bias"]
    steps = torch.eye(5)
    for other in (steps[1], -0.5 * steps[0], torch.zeros(5)):
        states = {
            "p": {"b.bias": bias + steps[0]},
            "q": {"b.bias": bias + other, "a.bias": start["a.bias"]},
        }
        assert torch.equal(merge("model_stock", states)["b.bias"], bias)


def test_dare_keeps_rescaled_updates_and_adds_them_up(network, merge):
    start, states = (
        network.state_dict(),
        {key: moved(network, seed) for seed, key in enumerate("pq")},
    )
    found, masks = merge("dare", states), []
    for name, _ in network.named_parameters():
        total = start[name].flatten().double()
        for key, state in states.items():
            number = (
                int.from_bytes(hashlib.sha256(f"{RUN}/{key}/{name}".encode()).digest()[:8], "big")
                >> 1
            )
            drawn = torch.rand(
                start[name].shape, generator=torch.Generator().manual_seed(number)
            ).flatten()
            masks += [float(value) < 0.6 for value in drawn]
            for i, (value, before) in enumerate(
                zip(state[name].flatten(), start[name].flatten(), strict=True)
            ):
                total[i] += 0.4 * (float(value) - float(before)) / 0.6 if drawn[i] < 0.6 else 0.0
        torch.testing.assert_close(found[name].flatten(), total.float())
    assert 0.4 < np.mean(masks) < 0.8


def test_dares_masks_depend_on_run_and_parent_alone(network, merge):
    start, states = (
        network.state_dict(),
        {key: moved(network, seed) for seed, key in enumerate("pq")},
    )
    names = [name for name, _ in network.named_parameters()]
    one, other = (dict(list(states.items())[::step]) for step in (1, -1))
    first, second = merge("dare", one), merge("dare", other)
    for name in names:
        torch.testing.assert_close(first[name], second[name], rtol=1e-6, atol=1e-7)
    equal = dict.fromkeys("pq", states["p"])
    of_p, of_q = (merge("dare", {key: equal[key]}) for key in "pq")
    assert not torch.equal(of_p["a.weight"], of_q["a.weight"])
    assert not torch.equal(
        of_p["a.weight"], merge("dare", {"p": equal["p"]}, run="m/t/x/all/1")["a.weight"]
    )
    alone = merge(
        "dare", {"p": {"b.weight": states["p"]["b.weight"]}}
    )  # other tensors draw nothing from its numbers
    assert torch.equal(alone["b.weight"], of_p["b.weight"]) and torch.equal(
        alone["a.bias"], start["a.bias"]
    )


def test_dare_of_everything_is_task_arithmetic(network, merge, tmp_path):
    states = {key: moved(network, seed) for seed, key in enumerate("pqr")}
    found = merge("dare", states, density=1.0)
    weights = task_arithmetic.recipe(list(states), scaling=0.4)
    assert weights == {"pretrained": pytest.approx(-0.2), "p": 0.4, "q": 0.4, "r": 0.4}
    files = {key: tmp_path / f"{key}.safetensors" for key in states}
    torch.testing.assert_close(found, apply(copy.deepcopy(network), weights, files).state_dict())


def test_fisher_merging_weights_each_value_by_its_information(network, merge):
    states = {key: moved(network, seed) for seed, key in enumerate("pq")}
    fisher = {key: information(network, seed) for seed, key in enumerate("pq", start=7)}
    found, empty = merge("fisher", states, fisher), 0
    for name, _ in network.named_parameters():
        columns = [
            [part[name].flatten().tolist() for part in parts.values()] for parts in (states, fisher)
        ]
        for value, *both in zip(
            found[name].flatten().tolist(), *columns[0], *columns[1], strict=True
        ):
            tuned, weights = both[:2], both[2:]
            empty += not any(weights)
            weights = weights if any(weights) else [1.0, 1.0]
            expected = sum(w * x for w, x in zip(weights, tuned, strict=True)) / sum(weights)
            assert value == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert empty > 0


@pytest.mark.parametrize("name", ["soup", "model_stock", "fisher"])
def test_the_average_of_equal_states_is_that_state(network, merge, tmp_path, name):
    state = moved(network, 3)
    state["b.bias"][0] = 0.0
    states = dict.fromkeys("pqr", state)
    fisher = (
        {key: information(network, seed) for seed, key in enumerate("pqr")}
        if name == "fisher"
        else None
    )
    if name == "soup":
        merge("ties", states)  # writes the checkpoints
        files = {key: tmp_path / f"{key}.safetensors" for key in states}
        found = apply(copy.deepcopy(network), dict.fromkeys(states, 1 / 3), files).state_dict()
    else:
        found = merge(name, states, fisher)
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["model_stock", "ties", "dare", "fisher"])
def test_buffers_are_averaged_and_counters_keep_the_highest(network, merge, name):
    """No running variance may be dropped, rescaled or become negative."""
    states = {key: moved(network, seed) for seed, key in enumerate("pq")}
    for number, state in enumerate(states.values(), start=1):
        state["norm.running_var"] = torch.full((4,), number / 10)
        state["norm.num_batches_tracked"] = torch.tensor(number)
    fisher = {key: information(network, 0) for key in states} if name == "fisher" else None
    found = merge(name, states, fisher)
    torch.testing.assert_close(found["norm.running_var"], torch.full((4,), 0.15))
    assert found["norm.num_batches_tracked"] == 2


def peft_of(function, states, start, **settings):
    tensors = [state["a.weight"] - start["a.weight"] for state in states.values()]
    return start["a.weight"] + function(
        tensors, torch.full((len(tensors),), settings.pop("weight")), **settings
    )


@pytest.mark.filterwarnings("ignore:The density 1.0")
@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_peft_agrees(density):
    """On a network of one tensor, since peft trims each tensor for itself."""
    torch.manual_seed(0)
    start = {"a.weight": torch.randn(6, 8)}
    states = {key: {"a.weight": start["a.weight"] + torch.randn(6, 8)} for key in "pqr"}
    one = States(start, states, ["a.weight"], 48, RUN)

    def ours(algorithm, **settings):
        return dict(algorithm.merge(one, **settings))["a.weight"]

    expected = peft_of(merge_utils.ties, states, start, weight=0.7, density=density)
    torch.testing.assert_close(ours(ties, density=density, scaling=0.7), expected)
    weights = task_arithmetic.recipe("pqr", scaling=0.4)
    found = sum(
        weight * (states | {"pretrained": start})[key]["a.weight"]
        for key, weight in weights.items()
    )
    torch.testing.assert_close(
        found, peft_of(merge_utils.task_arithmetic, states, start, weight=0.4)
    )
    expected = peft_of(merge_utils.dare_linear, states, start, weight=0.4, density=1.0)
    torch.testing.assert_close(ours(dare, density=1.0, scaling=0.4), expected)
    one = replace(one, changes={"p": states["p"]})  # the trimming alone
    expected = peft_of(merge_utils.magnitude_prune, one.changes, start, weight=1.0, density=density)
    torch.testing.assert_close(ours(ties, density=density, scaling=1.0), expected)


IMAGES = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))


def probabilities(network, state, images):
    model = copy.deepcopy(network)
    model.load_state_dict(state)
    with torch.no_grad():
        return model(images).double().softmax(dim=1)


def test_an_ensemble_of_outputs_gives_the_logarithm_of_the_mean_probability(network, merge):
    states = {key: moved(network, seed, scale=1.0) for seed, key in enumerate("pq")}
    found = merge("output_ensemble", states, form="ensemble")
    parts = [
        probabilities(network, state, IMAGES) for state in (network.state_dict(), *states.values())
    ]
    with torch.no_grad():
        torch.testing.assert_close(found(IMAGES).exp(), (sum(parts) / 3).float())
    same = merge("output_ensemble", dict.fromkeys("pq", network.state_dict()), form="ensemble")
    with torch.no_grad():
        assert torch.equal(same(IMAGES), network(IMAGES).double().log_softmax(dim=1).float())


def test_an_ensembles_outputs_are_finite_where_probabilities_are_not():
    sure = nn.Linear(1, 2)
    sure.weight.data, sure.bias.data = torch.tensor([[0.0], [0.0]]), torch.tensor([0.0, 900.0])
    assert OutputEnsemble({"a": sure, "b": sure})(torch.ones(1, 1)).isfinite().all()


def test_dawin_averages_the_weights_for_each_image_by_its_entropies(network, merge):
    states = {key: moved(network, seed, scale=1.0) for seed, key in enumerate("pq")}
    found = merge("dawin", states, form="ensemble")
    every = [network.state_dict(), *states.values()]
    seen = []
    for image in IMAGES:
        entropies = []
        for state in every:
            entropies.append(
                -sum(
                    p * math.log(p) for p in probabilities(network, state, image[None])[0].tolist()
                )
            )
        total = sum(math.exp(-entropy) for entropy in entropies)
        seen.append([math.exp(-entropy) / total for entropy in entropies])
    with torch.no_grad():
        torch.testing.assert_close(
            found.weights(IMAGES).T, torch.tensor(seen), rtol=1e-4, atol=1e-6
        )
        logits = found(IMAGES)
    for image, weights, row in zip(IMAGES, seen, logits, strict=True):
        state = {
            name: sum(w * own[name] for w, own in zip(weights, every, strict=True))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in every[0].items()
        }
        model = copy.deepcopy(network)
        model.load_state_dict(state)
        torch.testing.assert_close(row, model(image[None])[0], rtol=1e-4, atol=1e-5)
    assert np.ptp([weights[0] for weights in seen]) > 0.05
    with torch.no_grad():  # whatever else is in the batch
        torch.testing.assert_close(found(IMAGES[2:3])[0], logits[2], rtol=1e-6, atol=1e-6)
    for key, value in network.state_dict().items():
        assert torch.equal(found.networks[0].state_dict()[key], value)  # left as it was


def test_dawin_of_equal_networks_is_that_network(network, merge):
    same = merge("dawin", dict.fromkeys("pq", network.state_dict()), form="ensemble")
    slightly = merge(
        "dawin", {"p": {"b.bias": network.state_dict()["b.bias"] + 1}}, form="ensemble"
    )
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in IMAGES])
        assert (
            torch.equal(same(IMAGES), alone)
            and same.changed == []
            and slightly.changed == ["b.bias"]
        )


def test_dawin_averages_what_only_one_of_its_parents_has_changed(network, merge):
    # given: parents that have changed a tensor each
    start = network.state_dict()
    first = {"b.bias": start["b.bias"] + 1}
    second = {"b.weight": start["b.weight"] * 2}
    # when
    found = merge("dawin", {"p": first, "q": second}, form="ensemble")
    with torch.no_grad():
        weights = found.weights(IMAGES)
        logits = found(IMAGES)
    # then: each of them is the average for the image, of which the pretrained network has its share
    assert sorted(found.changed) == ["b.bias", "b.weight"]
    for image, (_, of_first, of_second), row in zip(
        IMAGES, weights.T.tolist(), logits, strict=True
    ):
        model = copy.deepcopy(network)
        with torch.no_grad():
            model.get_parameter("b.bias").add_(of_first)
            model.get_parameter("b.weight").mul_(1 + of_second)
            torch.testing.assert_close(row, model(image[None])[0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_merged_is_refused_in_a_sentence(network, merge):
    tuned = moved(network, 1)
    strip = {
        f"padding_prompt.{side}": torch.ones(3, 1, 1) for side in ("top", "bottom", "left", "right")
    }
    with pytest.raises(
        UserError, match=r"^model_stock\.py: it merges at least 2 parents, but there is 1; .*\.$"
    ):
        merge("model_stock", {"p": tuned})
    for states in ({"p": tuned, "vp": strip}, {"vp": strip}):
        with pytest.raises(
            UserError, match=r"^'vp' trains a padding prompt, which can't be merged with weights\.$"
        ):
            merge("ties", states)
    with pytest.raises(UserError, match=r"^dawin\.py: a network has a padding prompt, .*\.$"):
        merge("dawin", {"p": tuned, "vp": strip}, form="ensemble")
    with pytest.raises(ValueError, match="'other' that the network lacks"):
        merge("dare", {"p": {"other": torch.ones(1)}})


@pytest.mark.parametrize(
    ("method", "setting", "value", "range_"),
    [
        ("ties", "density", 0, "a number above 0 and at most 1"),
        ("ties", "density", 1.01, "a number above 0 and at most 1"),
        ("dare", "density", [0.5, -0.1], "a number above 0 and at most 1"),
        ("ties", "scaling", 0, "a number above 0"),
        ("task_arithmetic", "scaling", -0.3, "a number above 0"),
        ("fisher", "fisher_images", 0, "a whole number from 1"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_runs(
    pytestconfig, method, setting, value, range_
):
    catalog = Catalog([pytestconfig.rootpath / "workflow/catalog"])
    choices = {"methods": [method], "method_settings": {method: {setting: value}}}
    with pytest.raises(UserError, match=f"{method}: the setting '{setting}' is .*; give {range_}"):
        resolve_grid(validated(choices, "config", "config.yaml"), catalog)


def test_an_algorithm_says_what_it_needs():
    assert takes_fisher(file_of("fisher")) and not any(
        takes_fisher(file_of(name)) for name in ("ties", "soup", "dawin")
    )
    assert [constant(file_of(name), "FEWEST_PARENTS", 1) for name in ("model_stock", "ties")] == [
        2,
        1,
    ]


@pytest.mark.parametrize("form", ["merge", "ensemble"])
def test_a_recipe_names_the_algorithm_and_no_file_or_weights(tmp_path, form):
    manifest, recipe = tmp_path / "manifest.json", tmp_path / "recipe.json"
    write_json(manifest, {"files": {"checkpoint.safetensors": "hash"}})
    run, known = (
        Run("m", "t", "x", "all", 3),
        {"settings": {"density": 0.5}, "parents": ["ft, seed 1"]},
    )
    write_recipe(
        run=run,
        manifests=[manifest],
        settings=MergeSettings(algorithm="any/where/mine.py", form=form, code=CODE, **known),
        recipe=recipe,
    )
    made = {"form": form, "algorithm": "mine", "run": "m/t/x/all/3", **known}
    assert read_json(recipe)["states"] == [{"alpha": None, "merge": made}]
    assert read_json(recipe)["checkpoints"] == {"ft, seed 1": "hash"}
    (state,) = run_states("x", recipe, "there/mine.py", [tmp_path / "f"])
    assert state == (
        None,
        Merge(**made | {"algorithm": "there/mine.py"}, fisher={"ft, seed 1": tmp_path / "f"}),
    )
    assert (
        list(state.weights) == ["ft, seed 1"]
        and run_states("x", recipe)[0].weights.algorithm == "mine"
    )


def source_of(folder, images, states, checkpoints, tmp_path):
    files = DatasetFiles("t", images, split=split_file(tmp_path / "split.parquet", 20))
    return RunOnDataset(
        Run("m", "t", "ft", "all", 4), states, checkpoints, folder, files, VIEW, 4, COMPUTE
    )


def test_fisher_information_is_that_of_the_runs_own_training_images(tmp_path):
    network = resnet(40)
    folder = model_folder(tmp_path / "model", network)
    images = random_images(20, 32, seed=1)
    tuned = copy.deepcopy(network)
    tuned.fc.weight.data += 0.1 * torch.randn(
        tuned.fc.weight.shape, generator=torch.Generator().manual_seed(1)
    )
    files = {"ft": tmp_path / "ft.safetensors"}
    safetensors.torch.save_file({"fc.weight": tuned.fc.weight.detach()}, files["ft"])
    source = source_of(
        folder,
        prepared_folder(tmp_path / "set", images),
        [State(None, {"ft": 1.0})],
        files,
        tmp_path,
    )
    found = tmp_path / "fisher.safetensors"
    compute_fisher(
        source=source, fisher_images=3, fisher=found, manifest=tmp_path / "manifest.json"
    )
    rows = rows_of("train", 20)
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, 3).round().astype(int)]
    generator, total = torch.Generator().manual_seed(4), {}
    for row in chosen:
        scores = tuned(normalised(images.images[[row]], MEAN, STD)).log_softmax(dim=1)[0]
        label = int(torch.multinomial(scores.detach().exp(), 1, generator=generator))
        for name, gradient in zip(
            dict(tuned.named_parameters()),
            torch.autograd.grad(scores[label], list(tuned.parameters())),
            strict=True,
        ):
            total[name] = total.get(name, 0) + gradient**2 / 3
    stored = safetensors.torch.load_file(found)
    assert stored.keys() == total.keys() and len(rows) < 20
    for name, expected in total.items():
        torch.testing.assert_close(stored[name], expected, rtol=1e-3, atol=1e-7)
    assert read_json(tmp_path / "manifest.json") == {"device": "cpu", "n": len(rows)}


@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_ewc_with_fisher_information_from_a_job_of_its_own_trains_to_the_same_bytes(tmp_path, kind):
    # Given: the pretrained model's Fisher information on a pretraining proxy, as a job computes and
    # stores it
    network = resnet(40)
    folder = model_folder(tmp_path / "model", network)
    model = load(folder, CPU)[0]
    proxy, target = random_images(12, 32, seed=1), random_images(10, 32, seed=2)
    files = DatasetFiles("reference", prepared_folder(tmp_path / "proxy", proxy))
    run = Run("m", "none", "pretrained", "all", 4)
    source = RunOnDataset(run, run_states("pretrained", None), {}, folder, files, VIEW, 4, COMPUTE)
    stored = tmp_path / "fisher.safetensors"
    compute_fisher(
        source=source,
        fisher_images=5,
        fisher=stored,
        manifest=tmp_path / "manifest.json",
        kind=kind,
    )

    def images_of(dataset):
        inputs = Inputs(dataset.images, MEAN, STD, CPU)
        return Images(inputs, torch.from_numpy(dataset.labels), class_members(dataset.space, CPU))

    # When: EWC computes it itself, and when it gets it and has no proxy
    results = []
    for reference, fisher in (
        (images_of(proxy), None),
        (None, safetensors.torch.load_file(stored)),
    ):
        algorithm = ElasticWeightConsolidation(lr=0.01, weight=10.0, fisher=kind, fisher_images=5)
        algorithm.setup(Task(copy.deepcopy(model), images_of(target), reference, 4, fisher=fisher))
        results.append(
            train(algorithm, model.state_dict(), TRAINING, Run("m", "t", "x", "all", 4), CPU)
        )
    # Then: the weights are the same, bit by bit, and others than without a penalty
    (history, own), (_, shared) = results
    assert own.keys() == shared.keys() and all(torch.equal(own[name], shared[name]) for name in own)
    assert history[-1]["loss"] > history[-1]["cross_entropy"]


def test_a_merge_is_fused_for_evaluation_and_an_ensemble_is_not_and_has_no_single_state(tmp_path):
    network = resnet(7)
    folder, files = model_folder(tmp_path / "model", network), {"p": tmp_path / "p.safetensors"}
    safetensors.torch.save_file({"fc.bias": network.fc.bias.detach() + 1}, files["p"])
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    merge = Merge("merge", file_of("ties"), {"density": 1.0, "scaling": 1.0}, ["p"], RUN)
    single = network_in_state(folder, merge, files, images)
    ensemble = Merge("ensemble", file_of("dawin"), {}, ["p"], RUN)
    several = network_in_state(folder, ensemble, files, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in single.modules())
    assert isinstance(several, dawin.DaWin) and not several.training
    assert sum(isinstance(module, nn.BatchNorm2d) for module in several.modules()) > 0
    with torch.inference_mode():
        torch.testing.assert_close(single(images), network(images) + 1, rtol=1e-4, atol=1e-4)
    of = [
        source_of(folder, tmp_path, [State(None, how)], files, tmp_path)
        for how in (merge, ensemble)
    ]
    assert of[0].weights is merge
    with pytest.raises(
        UserError, match=r"an ensemble has several networks; choose a method with one\.$"
    ):
        assert of[1].weights


def test_tensors_are_read_when_they_are_asked_for(tmp_path):
    path = tmp_path / "t.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2), "b": torch.ones(2)}, path)
    found = read_tensors(path)
    safetensors.torch.save_file({"a": torch.full((2,), 5.0), "b": torch.ones(2)}, path)
    assert (
        found["a"][0] == 5
        and list(found) == ["a", "b"]
        and "c" not in found
        and found["b"].device == CPU
    )

"""Memory that jobs need, against sums done by hand."""

import re

import pytest

from rib.base.errors import UserError
from rib.catalog.catalog import Catalog
from rib.grid import memory
from rib.grid.grid import resolve_grid
from rib.grid.memory import NetworkMemory
from rib.grid.stored_outputs import LARGEST_STORED
from rib.schema.config import config_of
from tiny.projects.project import ROOT

TABLE = """architecture,side,fp32,bf16,checkpointed_fp32,checkpointed_bf16
vit_base_patch16_224,224,200,100,20,10
ViT-B-16,224,200,100,20,10
tf_efficientnet_lite0,224,60,30,,
"""
VIT = "vit_base_patch16_224.augreg_in1k"
CLIP = "vit_base_patch16_clip_224.openai_ft_in1k"
CLIP_WITH_TEXT = "ViT-B-16.openai"


@pytest.fixture
def memory_of(tmp_path):
    """A function that gives the memory of networks of a grid of imagenet.

    Its arguments are settings of config.yaml.
    """
    (tmp_path / "activations.csv").write_text(TABLE)

    def memory_of(**settings):
        config = {"family": "imagenet", "models": [VIT], "methods": ["ft"], **settings}
        catalog = Catalog([ROOT / "workflow/catalog", tmp_path])
        return NetworkMemory(resolve_grid(config_of(config, "test"), catalog))

    return memory_of


def parameters_of(networks):
    return networks.grid.models[VIT].parameters


def test_activations_follow_precision_and_image_size(memory_of):
    assert memory_of(compute={"precision": "fp32"}).activations(VIT).usual == 200e6
    assert memory_of().activations(VIT).usual == 100e6, "auto is bf16 on a GPU"
    assert memory_of(compute={"device": "cpu"}).activations(VIT).usual == 200e6
    assert memory_of(image_size=448).activations(VIT).usual == 400e6


def test_training_on_a_gpu_holds_tensors_of_the_weights_and_activations(memory_of):
    networks = memory_of(methods=["ft"], recipes=["paper"])
    parameters = parameters_of(networks)
    weights = parameters * (4 * (5 + 1) + 2)  # five and SGD's momentum in fp32, and one in bf16
    assert networks.images_of_pass(VIT) == 64
    found = networks.training_on_gpu(VIT, 64, checkpointing=False)
    assert found == pytest.approx(1e9 + weights + 64 * 100e6)
    found = networks.training_on_gpu(VIT, 64, checkpointing=True)
    assert found == pytest.approx(1e9 + weights + 64 * 10e6)
    with_adamw = memory_of(methods=["ft"], recipes=["paper", "adamw"])
    found = with_adamw.training_on_gpu(VIT, 0, checkpointing=False)
    assert found == pytest.approx(1e9 + weights + 4 * parameters)


def test_the_memory_of_an_unknown_architecture_is_not_known(memory_of, monkeypatch):
    networks = memory_of(compute={"gpu_memory_gb": 0.1})
    networks.rows.clear()
    assert networks.training_on_gpu(VIT, 1, checkpointing=False) is None
    assert networks.evaluation_on_gpu(VIT) is None
    networks.refuse_what_does_not_fit()


def test_jobs_of_larger_networks_ask_for_more_and_on_a_cpu_for_their_activations(memory_of):
    networks = memory_of(compute={"device": "cpu"})
    parameters = parameters_of(networks)
    weights = memory.COPIES_IN_TRAINING * 4 * parameters / 1e6
    activations = 64 * 200
    training = memory.MARGIN * (memory.LIBRARIES + weights + activations)
    assert networks.training_on_host(VIT, "ft") == round(training)
    evaluation = networks.evaluation_on_host(VIT)
    assert evaluation < training
    another = memory.MARGIN * 4 * parameters / 1e6
    assert networks.evaluation_on_host(VIT, networks=3) == pytest.approx(
        evaluation + 2 * another, abs=2
    )
    on_gpu = memory_of().training_on_host(VIT, "ft")
    assert on_gpu == round(memory.MARGIN * (memory.LIBRARIES + memory.CUDA_ON_HOST + weights))


def test_a_curve_and_an_ensemble_have_several_networks_in_memory(memory_of):
    networks = memory_of(methods=["wise_ft_curve", "output_ensemble", "soup"])
    steps = networks.grid.methods["wise_ft_curve"].settings["steps"]
    assert networks.networks_of("wise_ft_curve") == steps + 1
    parents = networks.grid.parents_of("output_ensemble")
    assert networks.networks_of("output_ensemble") == 1 + len(parents)
    assert networks.networks_of("soup") == networks.networks_of("pretrained") == 1


def test_each_average_that_is_evaluated_with_others_is_in_memory(memory_of):
    listed_by_the_family = 3
    networks = memory_of(
        family="fashion",
        models=["fashion_cnn_1k"],
        methods=["wise_ft"],
        method_settings={"wise_ft": {"alpha": [0.5, 0.9]}},
    )
    assert networks.networks_of("wise_ft-alpha0.5") == listed_by_the_family
    assert networks.networks_of("wise_ft-alpha0.9") == 1


def test_outputs_that_methods_keep_of_training_images_are_counted(memory_of):
    """Of 3,750,000 images 4 kB of logits each are more than is kept on a GPU."""
    paper = {"recipes": ["paper"], "datasets": ["imagenet_c", "imagenet_r"]}
    kept = {}
    for target in ("imagenet_r", "imagenet_c"):
        without, lwf = (
            memory_of(**paper, targets=[target], methods=[method]).training_on_gpu(VIT, 64, False)
            for method in ("ft", "lwf")
        )
        kept[target] = lwf - without
    images = memory_of(**paper).grid.datasets["imagenet_r"].images
    assert kept == {"imagenet_r": images * 1000 * 4, "imagenet_c": 2 * 2**30}


def test_features_of_linear_probing_that_are_too_many_for_a_gpu_are_in_the_hosts_memory(memory_of):
    networks = memory_of(
        recipes=["paper"], datasets=["imagenet_c", "imagenet_r"], methods=["ft", "linear_probe"]
    )
    full = networks.training_on_host(VIT, "ft", "imagenet_c")
    images = networks.grid.datasets["imagenet_c"].images
    features = memory.MARGIN * images * 2048 * 4 / 1e6
    found = networks.training_on_host(VIT, "linear_probe", "imagenet_c")
    assert found == pytest.approx(full + features, abs=2)
    for target, size in (("imagenet_r", "all"), ("imagenet_c", "1000")):
        assert networks.training_on_host(VIT, "linear_probe", target, size) == full


def test_a_teachers_logits_that_are_too_many_for_a_gpu_are_in_the_hosts_memory_in_fp16(memory_of):
    networks = memory_of(
        recipes=["paper"], datasets=["imagenet_c", "imagenet_r"], methods=["ft", "lwf"]
    )
    full = networks.training_on_host(VIT, "ft", "imagenet_c")
    images = networks.grid.datasets["imagenet_c"].images
    found = networks.training_on_host(VIT, "lwf", "imagenet_c")
    assert found == pytest.approx(full + memory.MARGIN * images * 1000 * 2 / 1e6, abs=2)
    assert networks.training_on_host(VIT, "lwf", "imagenet_r") == full


@pytest.fixture
def memory_of_own(with_entries):
    """Memory of networks of the grid of imagenet with a user's own method `mine`."""

    def memory_of_own(tmp_path, **facts):
        (tmp_path / "methods").mkdir(exist_ok=True)
        (tmp_path / "methods/own.py").touch()
        catalog = with_entries(methods={"mine": {"algorithm": "own", **facts}})
        config = {"family": "imagenet", "models": [VIT], "methods": ["ft", "mine"]}
        return NetworkMemory(resolve_grid(config_of(config, "test"), catalog))

    return memory_of_own


def test_outputs_that_a_users_own_method_keeps_are_counted(memory_of_own, tmp_path):
    facts = {"stored_outputs": {"bytes_per_image": 10000, "large_on_host": True}}
    networks = memory_of_own(tmp_path, **facts)
    images = networks.grid.datasets["imagenet_c"].images
    without = networks.training_on_host(VIT, "ft", "imagenet_c")
    found = networks.training_on_host(VIT, "mine", "imagenet_c")
    assert found == pytest.approx(without + memory.MARGIN * images * 10000 / 1e6, abs=2)

    stored = networks.training_on_gpu(VIT, 64, False)
    nothing_stored = memory_of_own(tmp_path).training_on_gpu(VIT, 64, False)
    assert stored == nothing_stored + LARGEST_STORED


def test_a_text_tower_is_in_the_memory_of_a_gpu(memory_of):
    without, with_tower = (
        memory_of(models=[CLIP_WITH_TEXT], recipes=["paper"], methods=methods)
        for methods in (["ft"], ["flyp"])
    )
    found = with_tower.training_on_gpu(CLIP_WITH_TEXT, 64, False)
    expected = without.training_on_gpu(CLIP_WITH_TEXT, 64, False)
    assert found == expected + memory.PARAMETERS_OF_TEXT_TOWER * (4 * (5 + 1) + 2)


@pytest.mark.parametrize("method", ["flyp", "carot"])
def test_contrastive_losses_pass_micro_batches(memory_of, method):
    settings = {"models": [CLIP_WITH_TEXT], "methods": [method]}
    whole = memory_of(**settings).images_of_pass(CLIP_WITH_TEXT)
    split = memory_of(**settings, training={"micro_batch_size": 8})
    assert split.images_of_pass(CLIP_WITH_TEXT) == 8 < whole


def test_each_network_of_a_curve_is_in_the_memory_of_a_gpu(memory_of):
    one = memory_of(methods=["ft"])
    curve = memory_of(methods=["ft", "wise_ft_curve"])
    others = curve.networks_of("wise_ft_curve") - 1
    parameters = parameters_of(one)
    found = curve.evaluation_on_gpu(VIT)
    in_fp32_and_bf16 = 4 + 2
    assert found == one.evaluation_on_gpu(VIT) + others * in_fp32_and_bf16 * parameters


def test_networks_that_cannot_be_evaluated_on_a_gpu_are_refused_with_a_batch_that_fits(memory_of):
    def refuse(images):
        compute = {"gpu_memory_gb": 7, "evaluation_batch_size": images}
        methods = {"methods": ["ft", "wise_ft_curve"], "recipes": ["paper"]}
        training = {"micro_batch_size": 8}
        memory_of(compute=compute, training=training, **methods).refuse_what_does_not_fit()

    with pytest.raises(UserError, match=f"evaluating {VIT} with 512 images") as error:
        refuse(512)
    images = int(re.search(r"set compute.evaluation_batch_size to (\d+)", str(error.value))[1])
    refuse(images)
    with pytest.raises(UserError, match="evaluating"):
        refuse(images + 1)


@pytest.mark.parametrize(
    ("gigabytes", "settings", "remedies"),
    [
        (8, {}, "training.micro_batch_size to 47, or compute.gradient_checkpointing to true"),
        (3.55, {}, "training.micro_batch_size to 2"),
        (3.35, {}, "compute.gradient_checkpointing to true and training.micro_batch_size to 9"),
        (3.35, {"gradient_checkpointing": True}, "training.micro_batch_size to 9"),
        (2.0, {}, None),
    ],
)
def test_a_model_that_does_not_fit_is_named_with_what_helps(
    memory_of, gigabytes, settings, remedies
):
    networks = memory_of(recipes=["paper"], compute={"gpu_memory_gb": gigabytes, **settings})
    with pytest.raises(UserError) as error:
        networks.refuse_what_does_not_fit()
    message = str(error.value)
    assert f"compute.gpu_memory_gb is {gigabytes:g}, " in message and VIT in message
    if remedies is None:
        assert "set " not in message
    else:
        assert message.endswith(f"set {remedies}.")


def test_what_the_message_says_to_set_fits(memory_of):
    compute = {"gpu_memory_gb": 8}
    with pytest.raises(UserError) as error:
        memory_of(compute=compute).refuse_what_does_not_fit()
    images = int(re.search(r"micro_batch_size to (\d+)", str(error.value))[1])
    training = {"micro_batch_size": images}
    memory_of(compute=compute, training=training).refuse_what_does_not_fit()
    with pytest.raises(UserError):
        more = {"micro_batch_size": images + 1}
        memory_of(compute=compute, training=more).refuse_what_does_not_fit()
    memory_of(compute={**compute, "gradient_checkpointing": True}).refuse_what_does_not_fit()
    memory_of(compute={**compute, "device": "cpu"}).refuse_what_does_not_fit()
    memory_of(compute={"gpu_memory_gb": 80}).refuse_what_does_not_fit()


def test_of_several_models_the_one_that_needs_most_is_named(memory_of):
    networks = memory_of(models=[VIT, CLIP], compute={"gpu_memory_gb": 4})
    networks.rows["vit_base_patch16_clip_224"] = {
        **networks.rows["vit_base_patch16_224"],
        "bf16": "150",
    }
    with pytest.raises(UserError, match=f"training {CLIP} with"):
        networks.refuse_what_does_not_fit()


def test_a_memory_of_nothing_is_refused(memory_of):
    with pytest.raises(UserError, match="gpu_memory_gb"):
        memory_of(compute={"gpu_memory_gb": 0})


def test_the_catalogues_activations_are_of_its_architectures():
    catalog = Catalog([ROOT / "workflow/catalog"])
    rows = catalog.table(memory.ACTIVATIONS, memory.COLUMNS, memory.STATED)
    listed = [row["architecture"] for row in rows]
    assert len(listed) == len(set(listed))
    assert {model.architecture for model in catalog.models.values()} <= set(listed)
    for row in rows:
        for precision in memory.PRECISIONS:
            checkpointed = row[memory.CHECKPOINTED + precision]
            assert not checkpointed or float(checkpointed) <= float(row[precision])


def test_the_documented_allocation_has_the_memory_and_processors_of_five_trainings(memory_of):
    """Of ViT-B/16 on ImageNet-C, as docs/cluster.md says."""
    page = (ROOT / "docs/cluster.md").read_text()
    networks = memory_of(datasets=["imagenet_c", "imagenet_r"])
    of_job = networks.training_on_host(VIT, "ft", "imagenet_c") + memory.MEGABYTES_OF_LARGE_DATASETS
    (gigabytes,) = re.findall(r"salloc .*--mem=(\d+)G", page)
    assert 5 * of_job <= 1000 * int(gigabytes) < 5 * of_job + 1000
    cores = re.findall(r"(?:cpus-per-task=|--cores )(\d+)", page)
    assert cores == ["40"] * 3
    assert f"mem_mb={gigabytes}000" in page

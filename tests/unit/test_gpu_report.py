"""`make gpu`: what it decides of measurements, with stand-ins for a GPU's answers.

tests/integration/test_gpu_command.py runs the command.
"""

import contextlib
import csv
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from rib.report.rates import GPU_RATE_COLUMNS
from tiny.projects.project import ROOT

CUDA = torch.device("cuda")
CPU = torch.device("cpu")
STATE = {"weight": torch.ones(2)}


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")


@pytest.fixture
def gpu():
    """The module of the command."""
    import gpu

    return gpu


@pytest.fixture
def report():
    """The module of the report."""
    import gpu_report

    return gpu_report


@pytest.fixture
def sync_modes(monkeypatch):
    """Modes in which torch was told to watch for waiting, one after the other."""
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    return modes


@pytest.fixture
def train(gpu, monkeypatch):
    """A function that sets what each training of a small network gives, or the error it raises."""

    def set_results(*results):
        remaining = list(results)

        def trained(name, network, device):
            with contextlib.nullcontext() if not steps else steps[0]():
                result = remaining.pop(0)
                if isinstance(result, Exception):
                    raise result
                return result

        monkeypatch.setattr(gpu.census, "trained", trained)
        monkeypatch.setattr(gpu, "trained_in_two_parts", lambda *arguments: STATE)

    steps = []

    @contextlib.contextmanager
    def each_step_within(context):
        steps.append(context)
        try:
            yield
        finally:
            steps.pop()

    monkeypatch.setattr(gpu.census, "each_step_within", each_step_within)
    return set_results


def verdicts(checks):
    return [check.verdict for check in checks]


def test_a_method_passes_if_no_step_waits_and_both_trainings_agree(gpu, train, sync_modes):
    train(STATE, STATE)
    assert verdicts(gpu.check_method("ft", "resnet", CUDA)) == ["passed"] * 4
    assert sync_modes == ["error", "default"], "the second training is free to wait"


def test_a_step_that_waits_is_named_and_the_bytes_are_compared_all_the_same(gpu, train, sync_modes):
    train(RuntimeError("called a synchronizing CUDA operation\nTraceback"), STATE, STATE)
    waits, same, _, _ = gpu.check_method("ft", "resnet", CUDA)
    assert (waits.verdict, same.verdict) == ("fell short", "passed")
    assert waits.measured == "RuntimeError: called a synchronizing CUDA operation"
    assert sync_modes == ["error", "default"]


def test_bytes_that_differ_fall_short(gpu, train, sync_modes):
    train(STATE, {"weight": torch.tensor([1.0, 1.0 + 1e-7])})
    _, same, _, _ = gpu.check_method("ft", "resnet", CUDA)
    assert same.verdict == "fell short"


def test_bytes_that_differ_after_resuming_fall_short(gpu, train, sync_modes, monkeypatch):
    train(STATE, STATE)
    other = {"weight": torch.zeros(2)}
    monkeypatch.setattr(gpu, "trained_in_two_parts", lambda *arguments: other)
    _, same, resumed, _ = gpu.check_method("ft", "resnet", CUDA)
    assert (same.verdict, resumed.verdict) == ("passed", "fell short")


@pytest.mark.parametrize(("waits", "verdict"), [(3, "passed"), (10, "fell short")])
def test_a_setup_that_waits_for_each_image_falls_short(
    gpu, train, sync_modes, monkeypatch, waits, verdict
):
    """Of ten; torch warns each time that the host waits, and of other things."""

    def set_up(name, network, device, setup_within):
        with setup_within():
            for _ in range(waits):
                warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
        return STATE

    train(STATE, STATE)
    monkeypatch.setattr(gpu, "trained_in_two_parts", set_up)
    *_, setup = gpu.check_method("ewc", "resnet", CUDA)
    assert (setup.verdict, setup.measured) == (verdict, f"{waits} times")
    assert sync_modes[-2:] == ["warn", "default"]


def test_on_a_cpu_nothing_is_said_of_waiting(gpu, train, sync_modes):
    train(STATE, STATE)
    assert verdicts(gpu.check_method("ft", "resnet", CPU)) == [
        "not checked on this device",
        "passed",
        "passed",
        "not checked on this device",
    ]
    assert sync_modes == []


def test_a_training_that_was_stopped_resumes_after_its_last_step(gpu, monkeypatch):
    """A training that began again would give the same bytes."""
    steps = []
    restore = gpu.training_state.TrainingState.restore

    def restore_and_note(state):
        position = restore(state)
        steps.append(position.step)
        return position

    monkeypatch.setattr(gpu.training_state.TrainingState, "restore", restore_and_note)
    state = gpu.trained_in_two_parts("ft", "resnet", CPU, None)
    assert steps == [0, 2]
    assert gpu.are_same(state, gpu.census.trained("ft", "resnet", CPU))


A_JOB = {"gpu": "0", "visible": 1, "begin": 0.0, "end": 10.0}


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"gpu": "1", "begin": 2.0, "end": 12.0}, None),
        ({"gpu": "0", "begin": 2.0, "end": 12.0}, "both had GPU 0"),
        ({"gpu": "1", "visible": 2, "begin": 2.0, "end": 12.0}, "sees more"),
        ({"gpu": "1", "begin": 11.0, "end": 21.0}, "waited"),
    ],
)
def test_two_jobs_have_two_gpus_at_once(other, problem):
    import gpu_locks

    found = gpu_locks.problem_of([{**A_JOB, **other}, A_JOB])
    assert found is None if problem is None else problem in found


def test_a_machine_with_one_gpu_skips_two_jobs_with_a_line(monkeypatch):
    import gpu_locks

    monkeypatch.setattr(gpu_locks, "number_of_gpus", lambda: 1)
    check = gpu_locks.check_two_gpus("cuda")
    assert check.verdict == "not checked on this device"
    assert check.measured == "there are no two GPUs"


def test_rates_of_a_card_take_the_place_of_its_own_and_stand_last(tmp_path):
    import gpu_rates

    def row(card, rate):
        return {**dict.fromkeys(GPU_RATE_COLUMNS, "x"), "card": card, "evaluate": rate}

    path = tmp_path / "new/rates.csv"
    for card, rate in (("H100", 1), ("A100", 2), ("H100", 3)):
        gpu_rates.write_rates(path, [row(card, rate)])
    with path.open() as file:
        rows = [(row["card"], row["evaluate"]) for row in csv.DictReader(file)]
    assert rows == [("A100", "2"), ("H100", "3")]


def test_an_architecture_that_fails_is_named_and_the_others_are_measured(monkeypatch):
    import gpu_rates

    both = [("timm", "no_such_network", {}, 160), ("timm", "test_vit", {}, 160)]
    effort = gpu_rates.Effort(both, batch_sizes=(2,), passes=1)
    monkeypatch.setattr(gpu_rates, "effort_on", lambda device: effort)
    checks, rows = gpu_rates.check_architectures(CPU, lambda name: None)
    first, *_ = checks
    assert first.verdict == "fell short" and "no_such_network" in first.subject
    assert [row["architecture"] for row in rows] == ["test_vit"]


def test_a_batch_that_is_too_large_for_the_gpu_is_made_smaller(monkeypatch):
    import gpu_rates

    sizes = []

    class Network(torch.nn.Linear):
        """It has too little memory for 64 images."""

        def forward(self, images):
            sizes.append(len(images))
            if len(images) == 64:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images.flatten(1))

    effort = gpu_rates.Effort([], batch_sizes=(64, 16), passes=1)
    rates = gpu_rates.rates_of(Network(3 * 4 * 4, 1000), 4, effort, CPU)
    assert rates.keys() == {"evaluate", "train"} and min(rates.values()) > 0
    assert set(sizes) == {64, 16}


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(0, 2), (5, 6)], 3),
        ([(5, 6), (0, 2), (1, 3)], 4),
        ([(0, 10), (2, 3), (9, 11)], 11),
    ],
)
def test_kernels_that_run_at_once_count_once(gpu, spans, length):
    assert gpu.covered(spans) == length


def subject_on(device):
    """What the functions that measure need of a subject, without a network."""
    return SimpleNamespace(
        device=device,
        workload=SimpleNamespace(rounds=1),
        network=SimpleNamespace(zero_grad=lambda: None),
        finished=lambda work: work,
    )


@pytest.mark.parametrize(
    ("device", "share", "verdict"),
    [
        (CUDA, 0.96, "passed"),
        (CUDA, 0.94, "fell short"),
        (CPU, 0.5, "not checked on this device"),
    ],
)
def test_the_speed_of_a_gpu_is_held_to_that_of_the_bare_loop(
    gpu, monkeypatch, device, share, verdict
):
    monkeypatch.setattr(gpu, "ratio", lambda real, bare, rounds: (2.0, 2.0 * share, share))
    monkeypatch.setattr(gpu, "check_busy", lambda *arguments: None)
    check, _ = gpu.check_speed(subject_on(device), "training", 100, lambda: None, lambda: None)
    assert check.verdict == verdict
    assert check.measured == f"{share:.3f} (50 of {50 / share:.0f} images/s)"


@pytest.mark.parametrize(("busy", "verdict"), [(0.95, "passed"), (0.5, "fell short")])
def test_a_gpu_is_busy_while_its_kernels_run(gpu, monkeypatch, busy, verdict):
    """Of the 2 seconds that the work takes; events of the host don't count."""
    on_gpu = SimpleNamespace(start=0.0, end=2e6 * busy)
    on_host = SimpleNamespace(start=0.0, end=2e6)
    events = [
        SimpleNamespace(device_type=DeviceType.CUDA, time_range=on_gpu),
        SimpleNamespace(device_type=DeviceType.CPU, time_range=on_host),
    ]
    profiled = SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(gpu, "profile", lambda activities: contextlib.nullcontext(profiled))
    monkeypatch.setattr(gpu, "timeit", lambda work, number: 2.0)
    check = gpu.check_busy(subject_on(CUDA), "training", lambda: None)
    assert (check.verdict, check.measured) == (verdict, f"{busy:.3f}")


@pytest.mark.parametrize(
    ("peak", "verdict"), [(0.4e9, "fell short"), (0.9e9, "passed"), (1.1e9, "fell short")]
)
def test_the_peak_of_memory_is_held_to_the_estimate(gpu, monkeypatch, peak, verdict):
    """One that is far too large is wrong as well: it refuses models that would fit."""
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: int(peak))
    check = gpu.check_peak(subject_on(CUDA), "training", lambda: None, 1e9)
    assert check.verdict == verdict
    on_cpu = gpu.check_peak(subject_on(CPU), "training", lambda: None, 1e9)
    assert (on_cpu.verdict, on_cpu.measured) == ("not checked on this device", "")


def test_the_estimates_are_those_of_plan_for_the_network_that_is_measured(gpu):
    estimates = gpu.estimated_bytes(64, CPU)
    entry = gpu.census.CATALOG.models[gpu.MODEL]
    assert entry.architecture == gpu.ON_GPU.architecture
    assert estimates["training"] > estimates["evaluation"] > 4 * entry.parameters


def test_the_last_line_says_what_fell_short_and_how_much_was_not_checked(report):
    passed = report.Check.on_gpu("a", True)
    short = report.Check.on_gpu("b", False, "at least 1", "0.5")
    not_checked = report.Check.on_gpu("c", None)
    assert "b (0.5)" in report.last_line([passed, short])
    assert "2 of 3" in report.last_line([passed, not_checked, not_checked])

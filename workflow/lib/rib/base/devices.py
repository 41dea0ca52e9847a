"""Kinds of devices, by which numbers of several jobs are compared."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

SEPARATOR = " + "  # between kinds of devices in a cell


def kind_of_device(facts: Mapping[str, Any]) -> str:
    """Kind of a device: `cpu in fp32`, `cuda (compute capability 8.0) in bf16`.

    Devices are of one kind if type, compute capability and precision agree. An H100 has several
    names (PCIe, NVL, a part of it under MIG), but one capability, for which CUDA chooses kernels.

    Args:
        facts: such as `{"device": "cpu", "precision": "fp32", "capability": None}`; manifests of
            earlier versions have only `device`.
    """
    capability = facts.get("capability")
    detail = f"compute capability {capability}" if capability else None
    return _text(facts, detail)


def describe_device(facts: Mapping[str, Any]) -> str:
    """A device by its name: `cpu in fp32`, `cuda (NVIDIA A100-SXM4-40GB) in bf16`.

    Args:
        facts: as of `kind_of_device`, with `gpu`, the name of the card.
    """
    return _text(facts, facts.get("gpu"))


def kinds_of_job(facts: Mapping[str, Any]) -> list[str]:
    """Kinds of all devices that computed a job, each once, the last device last.

    Args:
        facts: of the last device; `earlier_devices`, if given, has facts of the devices before, on
            which the job was stopped.
    """
    kinds = [kind_of_device(earlier) for earlier in facts.get("earlier_devices", [])]
    return list(dict.fromkeys([*kinds, kind_of_device(facts)]))


def join_kinds(kinds: Iterable[str]) -> str:
    """Kinds of devices as the cell of a table, each once: `cpu in fp32 + cuda (...) in bf16`."""
    return SEPARATOR.join(dict.fromkeys(kinds))


def name_mixture(devices: Iterable[str]) -> str | None:
    """A note on runs that several kinds of devices computed; None if one kind computed all.

    An example is "devices of several kinds: cuda (compute capability 8.0) in bf16 (12 runs); cpu in
    fp32 (1 run)".

    Args:
        devices: cells of `join_kinds`, one for each run.
    """
    runs_of_cell = Counter(devices)
    kinds = SEPARATOR.join(runs_of_cell).split(SEPARATOR)
    if len(set(kinds)) <= 1:
        return None
    parts = []
    for cell, runs in runs_of_cell.most_common():
        ending = "" if runs == 1 else "s"
        parts.append(f"{cell} ({runs} run{ending})")
    return f"devices of several kinds: {'; '.join(parts)}"


def _text(facts: Mapping[str, Any], detail: str | None) -> str:
    device = facts["device"]
    if detail:
        device = f"{device} ({detail})"
    precision = facts.get("precision", "unknown precision")
    return f"{device} in {precision}"

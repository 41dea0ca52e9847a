"""Kinds of devices, by which numbers of several jobs are compared."""

from collections.abc import Mapping
from typing import Any


def describe_device(facts: Mapping[str, Any]) -> str:
    """Text by which devices are compared: `cpu in fp32`, `cuda (NVIDIA A100-SXM4-40GB) in bf16`.

    Args:
        facts: such as `{"device": "cpu", "precision": "fp32", "gpu": None}`; manifests of earlier
            versions have only `device`.
    """
    device = facts["device"]
    if facts.get("gpu"):
        device = f"{device} ({facts['gpu']})"
    precision = facts.get("precision", "unknown precision")
    return f"{device} in {precision}"

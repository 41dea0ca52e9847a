"""Plugins of Snakemake that only clusters need."""

import importlib.util

import pytest


def needs(executor: str) -> pytest.MarkDecorator:
    """Skip tests where an executor's plugin is not installed."""
    plugin = importlib.util.find_spec(f"snakemake_executor_plugin_{executor}")
    return pytest.mark.skipif(
        plugin is None, reason="envs/requirements-cluster.txt is not installed"
    )

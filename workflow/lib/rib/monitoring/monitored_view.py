"""How the datasets that a training monitors are read.

This reads the schema of config, for which a training that monitors nothing need not wait.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rib.base.settings import replaced
from rib.config.choices import budget_of
from rib.config.schema import validated
from rib.data.settings import DatasetView


def monitored_view(
    view: DatasetView, datasets: Sequence[str], config: Mapping[str, Any]
) -> DatasetView:
    """The view of a job, but with the limits that monitored datasets have in evaluations.

    Args:
        view: of the job, which knows nothing of the monitored datasets, since what is monitored
            is no part of its settings.
        datasets: names of the monitored datasets.
        config: of the call of Snakemake, with the limits of all datasets.

    Raises:
        UserError: see `rib.config.schema.validated`.
    """
    valid_config = validated(config, "config", "config.yaml or --config")
    return replaced(view, budget=budget_of(valid_config).limits(datasets))

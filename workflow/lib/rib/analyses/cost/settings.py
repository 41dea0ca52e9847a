"""Settings of the job that sums up costs. No pandas: rules import this module."""

from rib.analysis.settings import TableSettings


class CostSettings(TableSettings):
    """Whose costs are summed up, by the paths of the records of jobs."""

    records: list[str]  # of trainings, merges and evaluations
    # Methods that each evaluation scores, by its name: {"ft": ["ft"], "wise_ft-alpha": [...]}
    evaluated: dict[str, list[str]]
    fisher: dict[str, list[str]]  # of the Fisher information that a merge needs, by method
    # Of the Fisher information that a method's trainings on all targets share, by method.
    shared_fisher: dict[str, list[str]]
    parents: dict[str, list[str]]  # methods to list, each with those whose checkpoints it needs

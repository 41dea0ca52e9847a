"""Errors that the user can correct."""

from rib.base.text import printable


class UserError(Exception):
    """An error that the user can correct.

    The message is one sentence: what is wrong, where, and what to do. It is printable wherever it
    is shown, also if it quotes names that others chose.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


class PermanentError(UserError):
    """An error that the same job would meet again, such as a training that diverges.

    A job that failed with it is not computed again when Snakemake retries it (`attempt` of
    rib.jobs.job.job).
    """

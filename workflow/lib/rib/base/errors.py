"""Errors that the user can correct."""

from rib.base.text import printable


class UserError(Exception):
    """An error that the user can correct.

    The message is one sentence: what is wrong, where, and what to do. Control characters in it are
    escaped, because it may quote names from downloaded files.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


class PermanentError(UserError):
    """An error that the same job would meet again, such as a training that diverges.

    `rib.jobs.job.job` does not repeat such a job when Snakemake retries it.
    """

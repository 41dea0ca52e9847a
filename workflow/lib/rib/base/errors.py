"""Errors that the user can correct."""


class UserError(Exception):
    """An error that the user can correct. The message is one sentence: what is wrong, where, and what to do."""

"""Signals that ask a process to end, held back until its work is saved."""

import signal

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; SLURM's at preemption and at the time limit


class DeferredEnding:
    """While its block runs, signals that ask the process to end are only noted.

    Use it in the main thread, which alone may handle signals.
    """

    def __init__(self) -> None:
        """No signal has come."""
        self._noted_signal: int | None = None

    def __enter__(self) -> "DeferredEnding":
        """Note signals from now on."""
        self._handlers = {number: signal.signal(number, self._note) for number in ENDING}
        return self

    def __exit__(self, *_: object) -> None:
        """Deliver a signal that was noted and not delivered yet."""
        self.deliver()

    @property
    def is_asked(self) -> bool:
        """Whether a signal has asked the process to end."""
        return self._noted_signal is not None

    def deliver(self) -> None:
        """Let signals do again what they did before the block, first of all the noted one.

        In a job it raises a SystemExit (see rib.jobs.job).
        """
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if self._noted_signal is not None:
            noted_signal = self._noted_signal
            self._noted_signal = None
            signal.raise_signal(noted_signal)

    def _note(self, signal_number: int, _: object) -> None:
        self._noted_signal = signal_number

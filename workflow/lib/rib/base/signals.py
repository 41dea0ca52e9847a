"""Hold back signals that ask a process to end, until its work is saved."""

import signal

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; SLURM at preemption and at the time limit


class DeferredEnding:
    """A `with` block in which signals to end are noted: a training saves its state first.

    Only the main thread may use it, because Python lets no other thread set handlers.
    """

    def __init__(self) -> None:
        self._noted_signal: int | None = None

    def __enter__(self) -> "DeferredEnding":
        self._handlers = {number: signal.signal(number, self._note) for number in ENDING}
        return self

    def __exit__(self, *_: object) -> None:
        self.deliver()

    @property
    def is_asked(self) -> bool:
        """Whether a signal has asked the process to end."""
        return self._noted_signal is not None

    def deliver(self) -> None:
        """Restore the handlers from before the block, and raise the noted signal.

        In a job, the signal raises SystemExit.
        """
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        if self._noted_signal is not None:
            noted_signal = self._noted_signal
            self._noted_signal = None
            signal.raise_signal(noted_signal)

    def _note(self, signal_number: int, _: object) -> None:
        """Python calls this at a signal."""
        self._noted_signal = signal_number

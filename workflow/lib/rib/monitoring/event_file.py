"""Event files, which TensorBoard shows.

TensorBoard's own SummaryWriter also shows each epoch of a killed training once, by `purge_step`.
But it writes in a thread, which a full disk ends: the terminal shows a traceback, the file keeps
half a record, and no later epoch is written when there is space again.
"""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

# Event files are known by this name; those of a folder are read in the order of their names.
PREFIX = "events.out.tfevents."


class EventFile:
    """A file with the values of each epoch of one training, in a folder of its own."""

    def __init__(self, folder: Path, job: str):
        """Name the file.

        Args:
            folder: for the event files of this training.
            job: identifies settings and inputs. Only files of the same job are kept if it resumes.
        """
        self.path = folder / f"{PREFIX}{time.time_ns()}.{job}"

    def start(self, resumed: bool) -> None:
        """Remove event files of other trainings, and of this one unless it is resumed."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{PREFIX}*"):
            is_of_this_job = path.suffix == self.path.suffix
            if not (resumed and is_of_this_job):
                path.unlink()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append the values of an epoch by tag, all or none.

        TensorBoard drops what earlier files of the folder have from the first epoch of this file
        on: a training that is resumed may train some epochs again.

        Raises an OSError if the disk is full.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        values_of_epoch = Event(step=epoch, summary=Summary(value=scalars))
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            if size:
                events = [values_of_epoch]
            else:
                version = Event(file_version="brain.Event:2")
                start = Event(step=epoch, session_log=SessionLog(status=SessionLog.START))
                events = [version, start, values_of_epoch]
            records = _serialized(events)
            try:
                if file.write(records) < len(records):
                    raise OSError(f"{self.path}: no space is left on the disk")
            except OSError:
                os.truncate(self.path, size)  # half a record would end what can be read
                raise


def _serialized(events: list) -> bytes:
    """Bytes of events in a file, each with its length and checksums; they get the current time."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        event.wall_time = time.time()
        writer.write(event.SerializeToString())
    return stream.getvalue()

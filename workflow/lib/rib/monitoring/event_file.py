"""Event files for TensorBoard.

TensorBoard's SummaryWriter could also show each epoch of a killed training once, by `purge_step`.
But it writes in a thread, and a full disk ends the thread: the terminal shows a traceback, the file
keeps half a record, and later epochs are missing even when there is space again.
"""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

# TensorBoard recognises event files by this prefix and reads a folder's files sorted by name.
PREFIX = "events.out.tfevents."


class EventFile:
    """A file for TensorBoard with values of each epoch of one training, such as its loss."""

    def __init__(self, folder: Path, job: str):
        """Name the file.

        Args:
            folder: for the event files of this training.
            job: identifies settings and inputs; a resumed training keeps only files of the same
                job.
        """
        self.path = folder / f"{PREFIX}{time.time_ns()}.{job}"

    def start(self, resumed: bool) -> None:
        """Remove files of other trainings from the folder, and of this one unless it is resumed."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{PREFIX}*"):
            is_of_this_job = path.suffix == self.path.suffix
            if not (resumed and is_of_this_job):
                path.unlink()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append an epoch's values by tag, such as {"train/loss": 0.3}: all or none.

        A resumed training may repeat epochs that earlier files have; TensorBoard shows this file's.

        Raises:
            OSError: The disk is full.
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
                # At this mark TensorBoard drops earlier files' values from this epoch on.
                start = Event(step=epoch, session_log=SessionLog(status=SessionLog.START))
                events = [version, start, values_of_epoch]
            records = _serialized(events)
            try:
                if file.write(records) < len(records):
                    raise OSError(f"{self.path}: no space is left on the disk")
            except OSError:
                os.truncate(self.path, size)  # nothing after half a record could be read
                raise


def _serialized(events: list) -> bytes:
    """Bytes of events as TensorBoard reads them: each with its length, checksums and the time."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        event.wall_time = time.time()
        writer.write(event.SerializeToString())
    return stream.getvalue()

"""Event files, which TensorBoard shows."""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

PREFIX = "events.out.tfevents."  # by which readers know event files; they read those of a folder in the order of names


class EventFile:
    """Values by epoch of one training; `job` identifies it, so that a resumed training keeps what it wrote before."""

    def __init__(self, folder: Path, job: str):
        self.path = folder / f"{PREFIX}{time.time_ns()}.{job}"

    def start(self, resumed: bool) -> None:
        """Remove event files of other trainings with the same log, and unless this one is resumed its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path in self.path.parent.glob(f"{PREFIX}*"):
            if not resumed or path.suffix != self.path.suffix:
                path.unlink()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append values by tag, all or none. Raises an OSError if the disk is full, an ImportError without tensorboard."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, records = time.time(), io.BytesIO()
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        events = [Event(wall_time=now, step=epoch, summary=summary)]
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            if not size:  # readers drop what earlier files have from this epoch on, which was trained again
                again = SessionLog(status=SessionLog.START)
                version = Event(wall_time=now, file_version="brain.Event:2")
                events = [version, Event(wall_time=now, step=epoch, session_log=again), *events]
            for event in events:
                RecordWriter(records).write(event.SerializeToString())
            try:
                if file.write(records.getvalue()) < records.tell():
                    raise OSError(f"{self.path}: no space is left on the disk")
            except OSError:
                os.truncate(self.path, size)
                raise

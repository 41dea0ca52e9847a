"""Event files, which TensorBoard shows."""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

PREFIX = "events.out.tfevents."  # by which readers know event files; they read those of a folder in the order of names


class EventFile:
    """Values by epoch of one training. `job` identifies it, so that only if it is resumed what it wrote before is kept."""

    def __init__(self, folder: Path, job: str):
        self.path = folder / f"{PREFIX}{time.time_ns()}.{job}"

    def start(self, resumed: bool) -> None:
        """Remove event files of other trainings."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path in self.path.parent.glob(f"{PREFIX}*"):
            if not resumed or path.suffix != self.path.suffix:
                path.unlink()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append values by tag, all or none; raise an OSError if the disk is full."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        events, records = [{"step": epoch, "summary": summary}], io.BytesIO()
        with open(self.path, "ab", buffering=0) as file:
            if not (size := file.tell()):  # readers drop what earlier files have from this epoch on
                start = {"step": epoch, "session_log": SessionLog(status=SessionLog.START)}
                events = [{"file_version": "brain.Event:2"}, start, *events]
            for event in events:
                RecordWriter(records).write(
                    Event(wall_time=time.time(), **event).SerializeToString()
                )
            try:
                if file.write(records.getvalue()) < records.tell():
                    raise OSError(f"{self.path}: no space is left on the disk")
            except OSError:
                os.truncate(self.path, size)
                raise

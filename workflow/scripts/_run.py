"""Shared by all scripts: where the library is, and how a script runs as a job."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from rib.jobs.parent_run import end_with_parent
from rib.jobs.script import run, show_user_errors_as_sentences  # noqa: F401

show_user_errors_as_sentences()
end_with_parent()

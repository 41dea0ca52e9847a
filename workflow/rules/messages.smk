# What the terminal shows, read before anything that may be wrong.

import sys
from pathlib import Path

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path[:0] = [str(WORKFLOW / "lib"), str(WORKFLOW / "rules")]

from messages import heed_signals, speak  # noqa: E402

MESSAGES = speak(workflow) if workflow.is_main_process else None


onstart:
    heed_signals(workflow, MESSAGES)


onerror:
    if MESSAGES:
        MESSAGES.end()

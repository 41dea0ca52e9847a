"""Run a script of Snakemake in a fork of a process that has imported its libraries (see forked.py).

Without such a process, as in a run from a new process, Python starts the script.
"""

import json
import os
import socket
import sys
from pathlib import Path


def main(script: str) -> None:
    """Run a script, and exit with its status."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ.get("RIB_TEST_SCRIPTS", ""))
    except OSError:
        os.execv(sys.executable, [sys.executable, script])
    job = {"script": script, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    socket.send_fds(connection, [b" "], [1, 2])
    connection.sendall(f"{json.dumps(job)}\n".encode())
    status = connection.recv(1)
    if not status:
        sys.exit("the process of this script was killed")
    sys.exit(status[0])


if __name__ == "__main__":
    main(sys.argv[1])

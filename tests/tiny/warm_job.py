"""Run a script of Snakemake in the server of its run's warm starts.

This is what `rib.jobs.fork_server.delegate` does in a script that Python has started, without what
the script imports before. If the run has no server, Python starts the script.
"""

import json
import os
import socket
import sys
from pathlib import Path

STARTED = b"S"


def main(script: str) -> None:
    """Run a script, and exit with its status."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        # This server has imported all libraries (see forked.py), so scripts without need it, too.
        connection.connect(f"{os.environ.get('RIB_WARM_START', '')}/networks.sock")
    except OSError:
        os.execv(sys.executable, [sys.executable, script])
    job = {"script": script, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    socket.send_fds(connection, [b" "], [1, 2])
    connection.sendall(f"{json.dumps(job)}\n".encode())
    if connection.recv(1) != STARTED:
        sys.exit("the server did not start this script")
    status = connection.recv(1)
    if not status:
        sys.exit("the worker process of this job was killed")
    sys.exit(status[0])


if __name__ == "__main__":
    main(sys.argv[1])

"""Let an environment import the library of the clone that it lies in, and have its command `rib`.

`import rib` works in any folder. `make environment` calls this with the environment's Python. An
editable installation would need a build backend, which is not among the locked packages.

The path of the library is relative, so it holds where
the clone is moved to, and for a clone that has a link to the environment of another one. A path
that doesn't exist is ignored by Python. Rules and scripts of the workflow put the library of their
own clone first.
"""

import os
import sysconfig
from pathlib import Path

COMMAND = """\
#!/bin/sh
exec "$(dirname "$0")/python" -m rib.commands "$@"
"""
LIBRARY = Path(__file__).absolute().parents[1] / "workflow/lib"


def main() -> None:
    """Write the command, and the file by which Python's `site` adds the library to the path."""
    packages = Path(sysconfig.get_path("purelib"))
    relative = os.path.relpath(LIBRARY, packages)
    (packages / "imagenet_rib.pth").write_text(f"{relative}\n", encoding="utf-8")
    command = Path(sysconfig.get_path("scripts"), "rib")
    command.write_text(COMMAND, encoding="utf-8")
    command.chmod(0o755)


if __name__ == "__main__":
    main()

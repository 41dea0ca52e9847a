"""Let an environment import the library of the clone that it lies in: `import rib`, in any folder.

`make environment` calls this with the environment's Python. The path is relative, so it holds where
the clone is moved to, and for a clone that has a link to the environment of another one. A path
that doesn't exist is ignored by Python. Rules and scripts of the workflow put the library of their
own clone first.
"""

import os
import sysconfig
from pathlib import Path

LIBRARY = Path(__file__).absolute().parents[1] / "workflow/lib"


def main() -> None:
    """Write the file by which Python's `site` adds the library to the end of the path."""
    packages = Path(sysconfig.get_path("purelib"))
    relative = os.path.relpath(LIBRARY, packages)
    (packages / "imagenet_rib.pth").write_text(f"{relative}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

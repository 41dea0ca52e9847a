"""Stands in for kubectl and the cluster behind it: a Job that Kubernetes' schema allows becomes a process of this machine.

Its state lies in the folder of the environment's KUBECTL_STATE: a manifest and a word per Job. The first Job whose name
begins with KUBECTL_EVICT fails without having run.
"""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

STATE = Path(os.environ["KUBECTL_STATE"])


def create(*_: str) -> str:
    manifest = yaml.safe_load(sys.stdin)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    prefix = manifest["metadata"]["generateName"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,56}-)?", prefix), f"{prefix} begins no name of Kubernetes"
    evicted = prefix.startswith(os.environ["KUBECTL_EVICT"]) and not list(STATE.glob(f"{prefix}*"))
    name = prefix + secrets.token_hex(3)
    (STATE / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    (STATE / f"{name}.state").write_text("Failed" if evicted else "")
    if not evicted:
        null = subprocess.DEVNULL
        command = [sys.executable, __file__, "run", name]
        subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
    return f"job.batch/{name}"


def run(name: str) -> str:
    """What the node does: nothing of the environment of who submitted reaches a pod."""
    (container,) = yaml.safe_load((STATE / f"{name}.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    clean = {key: os.environ[key] for key in ("PATH", "HOME")}
    done = subprocess.run(container["command"], cwd=container["workingDir"], env=clean)
    (STATE / f"{name}.state").write_text("Failed" if done.returncode else "Complete")
    return ""


def get(*words: str) -> str:
    assert words[0] == "--ignore-not-found" and "{.kind}" in words[2], words
    state = STATE / f"{words[-1].removeprefix('job.batch/')}.state"
    return f"Job {state.read_text()}".strip() if state.exists() else ""


def delete(*words: str) -> str:
    for word in words:
        if not word.startswith("--"):
            (STATE / f"{word.removeprefix('job.batch/')}.state").unlink(missing_ok=True)
    return ""


if __name__ == "__main__":
    print({"create": create, "run": run, "get": get, "delete": delete}[sys.argv[1]](*sys.argv[2:]))

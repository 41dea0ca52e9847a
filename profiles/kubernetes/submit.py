"""Make a Job of Kubernetes of the script of a job of snakemake's, and print its name."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

PROPERTIES = "# properties = "  # the line of its script by which snakemake describes the job
TEMPLATE = Path(__file__).with_name("job.yaml")


def manifest(script: Path) -> str:
    """The Job, as YAML."""
    lines = script.read_text(encoding="utf-8").splitlines()
    job = json.loads(next(line for line in lines if line.startswith(PROPERTIES)).removeprefix(PROPERTIES))
    resources = job["resources"]
    values = {
        "folder": str(Path.cwd()),
        "script": str(script.absolute()),
        "threads": job["threads"],
        "memory": f"{resources['mem_mb']}M",
        "seconds": 60 * resources["runtime"],
        "gpu": resources.get("gpu", 0),
    }
    # A group has no rule; and names of Kubernetes take no underscore.
    name = re.sub("[^a-z0-9]+", "-", job.get("rule", "group").lower())
    # JSON is YAML, whatever is in a folder's name; other uses of $ are left as they are.
    quoted = {key: json.dumps(value) for key, value in values.items()}
    return Template(TEMPLATE.read_text(encoding="utf-8")).safe_substitute(quoted, rule=name)


if __name__ == "__main__":
    if shutil.which("kubectl") is None:
        sys.exit("kubectl is not installed here; install it, and let it reach the cluster.")
    command = ["kubectl", "create", "--filename", "-", "--output", "name"]
    sys.exit(subprocess.run(command, input=manifest(Path(sys.argv[1])), text=True).returncode)

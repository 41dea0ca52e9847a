"""Check a job's inputs against the manifests and records next to them. No torch.

Snakemake watches small manifests instead of the large files that they list. A job therefore checks these files before
it reads them, and fails if one was edited or damaged.
"""

from collections.abc import Collection
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.records import provenance
from rib.records.hashing import differing


def files_of(manifest: Path) -> dict[Path, str]:
    """Files that a manifest lists, directly or through other manifests, with their hashes."""
    facts = read_json(manifest)
    found = {manifest.with_name(name): digest for name, digest in facts.get("files", {}).items()}
    for entry in facts["datasets"].values() if "order" in facts else ():  # rib.data.groups
        listed = Path(entry["manifest"])
        found |= {listed: entry["sha256"]} | (files_of(listed) if listed.is_file() else {})
    return found


def expected(inputs: Collection[Path]) -> dict[Path, str]:
    """Hashes of a job's inputs, and of the files they list, as far as a record or manifest contains them."""
    made: dict[str, str] = {}
    for folder in dict.fromkeys(path.parent for path in inputs):
        for record in filter(None, map(provenance.read, folder.glob(f"*{provenance.ENDING}"))):
            made |= record["outputs"]
    found = {path: made[str(path)] for path in inputs if str(path) in made}
    for path in inputs:
        if path.name.endswith("manifest.json") and path.is_file():
            found |= files_of(path)
    return found


def refuse_changed(inputs: Collection[Path]) -> dict[Path, str]:
    """Refuse inputs that changed after they were made, and return the hashes of those with a record; see `expected`.

    Raises:
        UserError: One was edited or damaged after it was made.
    """
    listed = {path: digest for path, digest in expected(inputs).items() if path.is_file()}
    wrong = list(map(str, differing(listed, "checking inputs", remember=True)))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0]}{more}: does not match the manifest or record next to it; it was edited or damaged. If shared, "
            f"restore it with `dvc pull --force {' '.join(wrong[:5])}`; otherwise delete it to have it made again."
        )
    return listed

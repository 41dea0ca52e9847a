"""Check a job's inputs against the manifests and records of the jobs that made them. No torch.

Snakemake watches small manifests instead of the large files that they list. A job therefore checks these files before
it reads them, and fails if one was edited or damaged.
"""

from collections.abc import Collection
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json
from rib.records import provenance
from rib.records.hashing import hashes


def files_of(manifest: Path) -> dict[Path, str]:
    """Files that a manifest lists, directly or through other manifests, with their hashes."""
    facts = read_json(manifest)
    with suppress(provenance.INVALID):
        found = {manifest.with_name(name): digest for name, digest in facts.get("files", {}).items()}
        for entry in facts["datasets"].values() if "order" in facts else ():  # rib.data.groups
            listed = Path(entry["manifest"])
            found |= {listed: entry["sha256"]} | (files_of(listed) if listed.is_file() else {})
        if all(map(provenance.HASH.fullmatch, found.values())):
            return found
    raise UserError(f"{manifest} {provenance.DAMAGED}. {provenance.remedy([str(manifest)])}")


def claims(inputs: Collection[Path]) -> dict[Path, set[str]]:
    """Hashes that records and manifests state of a job's inputs, and of the files that they list; one if they agree."""
    found: dict[Path, set[str]] = {path: set() for path in inputs}
    for path in inputs:
        if path.name.endswith("manifest.json") and path.is_file():
            for file, digest in files_of(path).items():
                found.setdefault(file, set()).add(digest)
    made: dict[str, str] = {}
    for folder in dict.fromkeys(path.parent for path in found):
        records = filter(None, map(provenance.read, folder.glob(f"*{provenance.ENDING}")))
        for record in sorted(records, key=itemgetter("ended")):  # a rule of an earlier version may have made the same
            made |= record["outputs"]
    stated = {path: digests | {made[str(path)]} if str(path) in made else digests for path, digests in found.items()}
    return {path: digests for path, digests in stated.items() if digests}


def refuse_changed(inputs: Collection[Path]) -> dict[Path, str]:
    """Refuse inputs that changed after they were made, and return the hashes, as computed, of all that are compared.

    Raises a UserError if one was edited or damaged since, or records and manifests state different hashes of it.
    """
    stated = claims(inputs)
    found = hashes([path for path in stated if path.is_file()], "checking inputs", remember=True)
    wrong = [str(path) for path, digests in stated.items() if len(digests | {found.get(path, next(iter(digests)))}) > 1]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0]}{more}: does not match the manifest or record next to it; it was edited or damaged. "
            f"{provenance.remedy(wrong[:5])}"
        )
    return found

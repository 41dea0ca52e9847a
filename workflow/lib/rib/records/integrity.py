"""Check a job's inputs against the manifests and records of the jobs that made them. No torch.

Snakemake watches small manifests instead of the large files that they list. A job therefore checks these files before
it reads them, and fails if one was edited or damaged.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json, sha256
from rib.base.progress import log
from rib.records import provenance
from rib.records.hashing import hashes, signature


@dataclass(frozen=True)
class CheckedFile:
    """A file before a job reads it.

    Attributes:
        signature: its size, times and inode, taken before it was hashed.
        sha256: the hash of its bytes.
    """

    signature: Mapping[str, int]
    sha256: str


def files_of(manifest: Path) -> dict[Path, str]:
    """Files that a manifest lists, directly or through other manifests, with their hashes."""
    facts = read_json(manifest)
    with suppress(provenance.INVALID):
        found = {
            manifest.with_name(name): digest for name, digest in facts.get("files", {}).items()
        }
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
        for record in sorted(
            records, key=itemgetter("ended")
        ):  # a rule of an earlier version may have made the same
            made |= record["outputs"]
    stated = {
        path: digests | {made[str(path)]} if str(path) in made else digests
        for path, digests in found.items()
    }
    return {path: digests for path, digests in stated.items() if digests}


def refuse_changed(inputs: Collection[Path]) -> dict[Path, CheckedFile]:
    """Refuse inputs that changed after they were made, and return all that are compared, as they are now.

    Raises a UserError if one was edited or damaged since, or records and manifests state different hashes of it.
    """
    stated = claims(inputs)
    signatures = {path: signature(path) for path in stated if path.is_file()}
    found = hashes(signatures, "checking inputs", remember=True)
    wrong = [
        str(path)
        for path, digests in stated.items()
        if len(digests | {found.get(path, next(iter(digests)))}) > 1
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{wrong[0]}{more}: does not match the manifest or record next to it; it was edited or damaged. "
            f"{provenance.remedy(wrong[:5])}"
        )
    return {
        path: CheckedFile(signatures[path], digest)
        for path, digest in found.items()
        if digest is not None
    }


def checked(inputs: Collection[Path]) -> dict[Path, CheckedFile]:
    """All files that a job reads: its inputs and those that they list, which are compared (see `refuse_changed`).

    Raises a UserError as `refuse_changed`, and an OSError if an input cannot be read.
    """
    files = refuse_changed(inputs)
    for path in inputs:
        if path not in files:
            files[path] = CheckedFile(signature(path), sha256(path))
    return files


def refuse_exchanged(files: Mapping[Path, CheckedFile]) -> None:
    """Refuse the result of a job if a file was exchanged while the job read it: its record would state another hash.

    Only files with another size, time or inode are read again. `snakemake track` and DVC's links change times and
    inodes but no bytes, so a file with the same bytes is accepted, with a warning: it may have been exchanged and put
    back.

    Args:
        files: as they were before the job began.

    Raises:
        UserError: a file has other bytes, or is missing.
    """
    exchanged = []
    for path, before in files.items():
        if not path.is_file():
            exchanged.append(str(path))
            continue
        if signature(path) == before.signature:
            continue
        if sha256(path) == before.sha256:
            log.warning(
                "%s was touched while this job ran; its bytes are as they were before", path
            )
        else:
            exchanged.append(str(path))
    if exchanged:
        more = f" and {len(exchanged) - 1} more" if len(exchanged) > 1 else ""
        raise UserError(
            f"{exchanged[0]}{more}: was changed while this job read it, so nothing was made of it; wait for what "
            "changes it, and run again."
        )

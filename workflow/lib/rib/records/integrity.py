"""Check a job's inputs against the manifests and records of the jobs that made them.

Snakemake watches small manifests instead of the large files listed in them. A job therefore checks
these files before it reads them, and fails if one was edited or damaged. This module does not
import torch.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rib.base.errors import UserError
from rib.base.files import read_json, sha256
from rib.base.progress import log
from rib.records import provenance
from rib.records.hashing import hashes, signature


@dataclass(frozen=True)
class CheckedFile:
    """A file before a job reads it, to notice later if it was exchanged meanwhile.

    Attributes:
        signature: size, times and inode, taken before hashing.
        sha256: in hex.
    """

    signature: Mapping[str, int]
    sha256: str


def files_of_manifest(manifest: Path) -> dict[Path, str]:
    """Files listed in a manifest, a small file by which Snakemake watches a job's large outputs.

    For example `{Path("data/red/images.npy"): "<SHA-256 in hex>"}`.

    Raises:
        UserError: the manifest is damaged.
    """
    facts = read_json(manifest)
    with suppress(*provenance.INVALID):
        digests = {}
        for name, digest in facts.get("files", {}).items():
            digests[manifest.with_name(name)] = digest
        if all(map(provenance.HASH.fullmatch, digests.values())):
            return digests
    raise UserError(
        f"{manifest} {provenance.DAMAGED}, or an earlier version wrote it. "
        f"{provenance.remedy([str(manifest)])}"
    )


def claims(inputs: Collection[Path]) -> dict[Path, set[str]]:
    """Hashes that a job's inputs should have, stated by the records and manifests beside them.

    Files that the manifests list are included; files without a stated hash are missing. A file has
    several hashes only if records and manifests disagree: `{Path("data/red/images.npy"):
    {"9f86..."}}`.
    """
    claims_of_files: dict[Path, set[str]] = {path: set() for path in inputs}
    for path in inputs:
        if path.name.endswith("manifest.json") and path.is_file():
            for file, digest in files_of_manifest(path).items():
                claims_of_files.setdefault(file, set()).add(digest)
    folders = dict.fromkeys(path.parent for path in claims_of_files)
    recorded = _recorded_outputs(folders)
    for path, digests in claims_of_files.items():
        if str(path) in recorded:
            digests.add(recorded[str(path)])
    return {path: digests for path, digests in claims_of_files.items() if digests}


def _recorded_outputs(folders: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of outputs, as records in these folders state: {"data/red/images.npy": "9f86..."}."""
    recorded: dict[str, str] = {}
    for folder in folders:
        for path in folder.glob(f"*{provenance.ENDING}"):
            record = provenance.read(path)
            if record is not None:
                recorded |= record["outputs"]
    return recorded


def refuse_changed(inputs: Collection[Path]) -> dict[Path, CheckedFile]:
    """Refuse inputs that changed after they were made.

    Returns:
        The compared files (inputs with a stated hash, and files listed in manifests) as they are
            now.

    Raises:
        UserError: a file was edited or damaged, or records and manifests state different hashes.
    """
    claims_of_files = claims(inputs)
    signatures = {path: signature(path) for path in claims_of_files if path.is_file()}
    current_hashes = hashes(signatures, "checking inputs", remember=True)
    wrong = []
    for path, claimed in claims_of_files.items():
        # The job itself reports a missing file.
        is_other = path in current_hashes and claimed != {current_hashes[path]}
        if is_other or len(claimed) > 1:
            wrong.append(str(path))
    if wrong:
        raise UserError(
            f"{_first_and_count(wrong)}: does not match the manifest or record next to it; it was "
            f"edited or damaged. {provenance.remedy(wrong[:5])}"
        )
    checked_files = {}
    for path, digest in current_hashes.items():
        if digest is not None:
            checked_files[path] = CheckedFile(signatures[path], digest)
    return checked_files


def _first_and_count(paths: list[str]) -> str:
    """Files in a message: `a.npy and 2 more`."""
    if len(paths) == 1:
        return paths[0]
    return f"{paths[0]} and {len(paths) - 1} more"


def checked(inputs: Collection[Path]) -> dict[Path, CheckedFile]:
    """Check all files that a job reads, and return their signatures and hashes.

    These are the job's inputs and the files that manifests among the inputs list. The job's record
    states the hashes; `refuse_exchanged` compares them later.

    Raises:
        UserError: a file differs from its record or manifest.
        OSError: an input can't be read.
    """
    files = refuse_changed(inputs)
    for path in inputs:
        if path not in files:
            files[path] = CheckedFile(signature(path), sha256(path))
    return files


def refuse_exchanged(files: Mapping[Path, CheckedFile]) -> None:
    """Refuse a job's result if a file changed while the job read it.

    Otherwise the job's record would state a hash of bytes that the job may not have read. Only
    files with another signature are hashed again. `rib track` and DVC's links change times and
    inodes but no bytes: a file with the same bytes is accepted with a warning, since it may have
    been exchanged and put back.

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
        raise UserError(
            f"{_first_and_count(exchanged)}: was changed while this job read it, so nothing was "
            "made of it; wait for what changes it, and run again."
        )

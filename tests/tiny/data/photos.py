"""Photos that tell their class, archives of them, and their preparation."""

import io
import json
import sys
import tarfile
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from rib.base.files import sha256
from rib.base.plugins import LIBRARY
from rib.catalog.label_space import LabelSpace, imagenet_wnids
from rib.data.data_settings import PreparationSettings
from rib.data.prepare import prepare
from rib.schema.geometry import Geometry

GEOMETRY = Geometry(size=32, crop_pct=1.0, interpolation="bicubic")
WNIDS = imagenet_wnids()
# Not in the order of a text listing, and classes whose numbers sort otherwise as text.
INDICES = [2, 10, 101, 999]


def jpeg(index, size=(40, 36), mode="RGB", kind="JPEG"):
    """A picture whose colour tells its class's index."""
    colour = (index // 16 % 16 * 16 + 8, index % 16 * 16 + 8, index // 256 * 32 + 8)
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def index_of(pixels):
    """The class's index that the colour of a picture tells."""
    red, green, blue = (
        round((channel_mean - 8) / step)
        for channel_mean, step in zip(pixels.mean(axis=(0, 1)), (16, 16, 32), strict=True)
    )
    return blue * 256 + red * 16 + green


def tar(path, files, mode="w"):
    """Write files, given as bytes by name, into a tar archive; gives its path."""
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path, files):
    """Write files, given as bytes by name, into a zip archive; gives its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def space_of(indices):
    """The ImageNet classes of some indices."""
    wnids = tuple(WNIDS[i] for i in indices)
    return LabelSpace(wnids, tuple((i,) for i in indices), wnids)


def devkit(path, numbers, missing=None):
    """Write ImageNet's development kit; gives its path.

    Its class numbers run against the order of the wnids, and it has a parent synset.

    Args:
        numbers: text of the file with the class numbers of the validation images.
        missing: part of the name of the file that is left out.
    """
    synsets = [(number + 1, WNIDS[999 - number], 0) for number in range(1000)]
    synsets.append((1001, "n00001740", 5))
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(synsets, dtype=fields)})
    top = "ILSVRC2012_devkit_t12/data"
    files = {
        f"{top}/meta.mat": buffer.getvalue(),
        f"{top}/ILSVRC2012_validation_ground_truth.txt": numbers.encode(),
    }
    if missing:
        files = {name: data for name, data in files.items() if missing not in name}
    return tar(path, files, "w:gz")


def encrypted(path: Path, files: dict[str, bytes], password: str) -> Path:
    """Write a zip encrypted in the traditional way; gives its path.

    See PKWARE's APPNOTE, section 6.1. Python reads such archives and doesn't write them.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            check = zlib.crc32(data)
            archive.writestr(name, _encrypt(bytes(11) + bytes([check >> 24]) + data, password))
            info = archive.infolist()[-1]
            info.flag_bits |= 1
            info.CRC = check
            info.file_size = len(data)
            archive.fp.seek(info.header_offset)
            archive.fp.write(info.FileHeader())
            archive.fp.seek(archive.start_dir)
    return path


def _encrypt(data: bytes, password: str) -> bytes:
    """Bytes encrypted with a password, as APPNOTE's section 6.1 has it."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(old, byte):
        return zlib.crc32(bytes([byte]), old ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte):
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    def encrypt(byte):
        t = (keys[2] | 2) & 0xFFFF
        cipher_byte = byte ^ ((t * (t ^ 1)) >> 8 & 0xFF)
        update(byte)
        return cipher_byte

    for byte in password.encode():
        update(byte)
    return bytes(map(encrypt, data))


def run_prepare(folder: Path, *arguments, **settings) -> tuple[pd.DataFrame, np.ndarray, dict]:
    """Prepare archives with a layout into a folder; gives the index, the images and the classes.

    Arguments are those of `prepare_into`.
    """
    prepare_into(folder, *arguments, **settings)
    index = pq.read_table(folder / "index.parquet").to_pandas()
    return index, np.load(folder / "images.npy"), json.loads((folder / "classes.json").read_text())


def prepare_job(layout: str, settings: str) -> list[str]:
    """Command of a job in the current folder that prepares `a.tar` into `out`.

    Args:
        settings: Python code of keyword arguments for `run_prepare`.
    """
    script = f"""
        import sys
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from rib.catalog.label_space import LabelSpace
        from rib.jobs.job import job
        from tiny.data.photos import run_prepare
        names = ("images.npy", "index.parquet", "classes.json", "manifest.json")
        outputs = {{name: f"out/{{name}}" for name in names}}
        with job(rule="prepare", name="x", cfg={{}}, inputs={{"archive": "a.tar"}}, outputs=outputs,
                 log_file="log", resumes="images.journal") as out:
            run_prepare(out["images.npy"].parent, {layout!r}, Path("a.tar"), {settings})
    """
    return [sys.executable, "-c", textwrap.dedent(script)]


def prepare_into(
    folder: Path,
    layout: str,
    *archives: Path,
    space: LabelSpace | None = None,
    expected: int | None = None,
    about: int | None = None,
    storage: str = "array",
    classes_per_dataset: bool = False,
    corrupt_allowed: int = 0,
    decode_workers: int = 2,
    source_group: str | None = "val",
    icons: dict | None = None,
    exclude: tuple = (),
    only: tuple | None = None,
    geometry: Geometry = GEOMETRY,
    folders: tuple = (),
    file_digests: dict | None = None,
    **settings,
) -> None:
    """Prepare archives with a layout into a folder.

    Args:
        layout: name of the layout.
        space: the classes; without it, those of INDICES.
        expected: number of images, which must be right.
        about: approximate number of images, to check the disk space.
        folders: the user's folders that the archives were packed from.
        settings: of the layout, of which `photos` names another layout; all other arguments are as
            in a preparation's settings.
    """
    photos_layout = None
    if "photos" in settings:
        photos_layout = str(LIBRARY / "data/layouts" / f"{settings['photos']['layout']}.py")
    prepare(
        name="set",
        archives=archives,
        settings=PreparationSettings(
            digests=tuple(f"sha256:{sha256(path)}" for path in archives),
            layout=str(LIBRARY / "data/layouts" / f"{layout}.py"),
            photos_layout=photos_layout,
            settings=settings,
            source_group=source_group,
            icons=icons or {},
            exclude=exclude,
            only=only,
            file_digests=file_digests or {},
            space=space or space_of(INDICES),
            classes_per_dataset=classes_per_dataset,
            storage=storage,
            geometry=geometry,
            expected=expected,
            about=about,
            code="of no rule",
        ),
        corrupt_allowed=corrupt_allowed,
        decode_workers=decode_workers,
        **prepared_files(folder),
        folders=folders,
    )


def prepared_files(folder: Path) -> dict[str, Path]:
    """The files of a prepared dataset in a folder, by the argument of `prepare`."""
    return {
        "images": folder / "images.npy",
        "index": folder / "index.parquet",
        "classes": folder / "classes.json",
        "manifest": folder / "manifest.json",
    }

"""Debian packages, made byte by byte, so that they can be wrong in any way."""

import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping

MAGIC = b"!<arch>\n"
FOLDER = "usr/share/set"  # of the files in a package, without `./`


def ar_file(name: str, data: bytes, size: str | None = None, end: bytes = b"`\n") -> bytes:
    """A file of an ar archive with its header, which may state another size."""
    size = str(len(data)) if size is None else size
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{size:<10}".encode() + end
    return header + data + b"\n" * (len(data) % 2)


def tar_of(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar of files in FOLDER; in place of bytes, a file may be a header of another type."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo()
            info.name = f"./{FOLDER}/{name}"
            if isinstance(data, bytes):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                archive.addfile(info)
    return buffer.getvalue()


def package_around(tar: bytes, name: str = "data.tar") -> bytes:
    """A Debian package with a tar, which may be compressed already."""
    control = lzma.compress(tar_of({"control": b"Package: set\n"}))
    return b"".join(
        (
            MAGIC,
            ar_file("debian-binary", b"2.0\n"),
            ar_file("control.tar.xz", control),
            ar_file(name, tar),
        )
    )


def package(files: Mapping[str, bytes | tarfile.TarInfo], compression: str = "xz") -> bytes:
    """A Debian package of files in FOLDER."""
    tar = tar_of(files)
    if compression == "zst":
        import pyarrow

        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(tar)
        packed = sink.getvalue().to_pybytes()
    else:
        packed = {"xz": lzma.compress, "gz": gzip.compress, "": bytes}[compression](tar)
    return package_around(packed, f"data.tar.{compression}".rstrip("."))

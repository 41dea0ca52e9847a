"""Descriptions of prepared datasets for machines, in the Croissant format.

A description names the files of a prepared dataset by their path in the project, with size and
SHA-256, and the columns of its index. Source: http://mlcommons.org/croissant/1.0
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rib.base.errors import UserError
from rib.base.files import read_json, write_json
from rib.records.provenance import ENDING
from rib.records.settings import DescribedDataset

SPECIFICATION = "http://mlcommons.org/croissant/1.0"
# The context that the specification recommends.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FORMATS = {
    ".npy": "application/octet-stream",
    ".parquet": "application/x-parquet",
    ".json": "application/json",
}
INDEX = "index.parquet"
VERSION = "1.0.0"  # of descriptions; the digests in them are those of the files


def describe_datasets(datasets: Mapping[str, DescribedDataset], report: Path) -> list[Path]:
    """Write a description of each dataset that is prepared here; gives the files.

    Args:
        datasets: by name, those that may be passed on.
        report: folder of the family's tables; descriptions are in `croissant/` there.

    Raises:
        UserError: the record of a prepared dataset is not readable.
    """
    written = []
    for name, dataset in datasets.items():
        manifests = sorted(Path(dataset.folder).glob("*/manifest.json"))
        prepared_folders = [path.parent for path in manifests if (path.parent / ENDING).is_file()]
        if not prepared_folders:
            continue
        file = report / "croissant" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, description(name, dataset, prepared_folders, up=file.parent))
        written.append(file)
    return written


def description(
    name: str, dataset: DescribedDataset, prepared_folders: Sequence[Path], up: Path
) -> dict[str, Any]:
    """The description of a dataset, as JSON-LD.

    Args:
        prepared_folders: one for each size and crop of the images, relative to the project.
        up: folder of the description, relative to the project; addresses are relative to it.
    """
    records = [_record(folder / ENDING) for folder in prepared_folders]
    distribution = []
    record_sets = []
    to_project = "/".join([".."] * len(up.parts))
    for folder, record in zip(prepared_folders, records, strict=True):
        for path, digest in record["outputs"].items():
            if Path(path).name != "manifest.json":
                size = record["sizes"][path]
                distribution.append(_file(path, f"{to_project}/{path}", digest, size))
        record_sets.append(_record_set(folder))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": SPECIFICATION,
        "name": name,
        "description": f"{dataset.label}, prepared for ImageNet-RIB: {dataset.family}.",
        "license": dataset.licence,
        "url": dataset.url,
        "creator": {"@type": "sc:Organization", "name": dataset.origin},
        "citeAs": dataset.origin,
        "datePublished": max(record["ended"] for record in records)[:10],
        "version": VERSION,
        "distribution": distribution,
        "recordSet": record_sets,
    }


def _record(path: Path) -> dict[str, Any]:
    """The provenance record of a prepared dataset."""
    try:
        record: dict[str, Any] = read_json(path)
        return {key: record[key] for key in ("outputs", "sizes", "ended")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not readable as a record; delete its folder and run again to recreate it."
        ) from error


def _file(path: str, address: str, digest: str, size: int) -> dict[str, Any]:
    """A file of the dataset, which is named by its path in the project."""
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": address,
        "contentSize": f"{size} B",
        "encodingFormat": FORMATS[Path(path).suffix],
        "sha256": digest,
    }


def _record_set(folder: Path) -> dict[str, Any]:
    """Croissant's RecordSet of a prepared dataset: its images, with the columns of its index.

    These are integers or texts.
    """
    index = folder / INDEX
    identifier = f"{folder}/images"
    fields = []
    for column in pq.read_schema(index):
        field = {
            "@type": "cr:Field",
            "@id": f"{identifier}/{column.name}",
            "name": f"{identifier}/{column.name}",
            "dataType": "sc:Integer" if pa.types.is_integer(column.type) else "sc:Text",
            "source": {"fileObject": {"@id": str(index)}, "extract": {"column": column.name}},
        }
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": identifier,
        "name": identifier,
        "description": f"One record per image, in the order of {folder}/images.npy.",
        "field": fields,
    }

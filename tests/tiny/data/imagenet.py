"""Small archives of the ImageNet family in their true layouts, under their published names.

Every class has a picture whose colour tells its index, so that each label can be checked image by
image.
"""

import io
import tarfile
from functools import cache

import yaml
from PIL import Image

from rib.base.files import sha256
from rib.catalog.catalog import Catalog
from rib.catalog.label_space import read_timm_list
from tiny.data.photos import WNIDS, devkit, encrypted, jpeg, tar, zipped

PASSWORD = "open sesame"
CLASSES = 1000
PER_CLASS = 2  # val's images of each class, and so Cartoon's and Drawing's
IMAGES_OF_VAL = CLASSES * PER_CLASS
CLASSES_OF_C = (2, 10, 101)
SEVERITIES = (1, 2, 3, 4, 5)
# Images of each evaluated dataset.
COUNTS = {
    "imagenet_val": IMAGES_OF_VAL,
    "imagenet_v2": CLASSES,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": CLASSES,
    "objectnet": 113,
    "imagenet_cartoon": IMAGES_OF_VAL,
    "imagenet_drawing": IMAGES_OF_VAL,
    "imagenet_c": 15 * len(SEVERITIES) * len(CLASSES_OF_C),
}
# In pixels. Pictures of other widths are other photos; datasets with two of a class take the next
# width, too.
EXTRA_WIDTH = {
    "imagenet_val": 0,
    "imagenet_v2": 2,
    "imagenet_a": 3,
    "imagenet_r": 4,
    "imagenet_sketch": 5,
    "imagenet_cartoon": 6,
    "imagenet_drawing": 8,
    "imagenet_c": 10,
    "imagenet_train": 12,
}


@cache
def picture(index, extra_width=0):
    """A picture of a class; one of another width is another photo."""
    return jpeg(index, size=(12 + extra_width, 10))


def val_name(index, repetition):
    """The file name of a validation image: the images of all classes follow one another."""
    number = repetition * CLASSES + index + 1
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def photos(top, indices, extra_width):
    """A photo of each of some classes, in folders of classes below `top`."""
    files = {}
    for index in indices:
        wnid = WNIDS[index]
        files[f"{top}{wnid}/{wnid}_0.JPEG"] = picture(index, extra_width)
    return files


def made_from_val(top, extra_width):
    """Pictures made from the validation images, under their names."""
    files = {}
    for index in range(CLASSES):
        for repetition in range(PER_CLASS):
            name = f"{top}{WNIDS[index]}/{val_name(index, repetition)}"
            files[name] = picture(index, extra_width + repetition)
    return files


def with_red_border(photo):
    """A PNG of a photo with the border of two pixels that ObjectNet's images have."""
    image = Image.new("RGB", (20, 18), (255, 0, 0))
    image.paste(Image.open(io.BytesIO(photo)).resize((16, 14)), (2, 2))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def objectnet(label_space):
    """One photo in the folder of each of ObjectNet's classes."""
    files = {"objectnet-1.0/mappings/folder_to_objectnet_label.json": b"{}"}
    for key, (first_index, *_) in zip(label_space.keys, label_space.indices, strict=True):
        files[f"objectnet-1.0/images/{key}/1.png"] = with_red_border(picture(first_index))
    return files


def write_val(folder):
    """The validation images, and the development kit that says their classes."""
    files = {}
    # The kit's class numbers run against the indices.
    class_numbers = []
    for repetition in range(PER_CLASS):
        for index in range(CLASSES):
            extra_width = EXTRA_WIDTH["imagenet_val"] + repetition
            files[val_name(index, repetition)] = picture(index, extra_width)
            class_numbers.append(str(CLASSES - index))
    tar(folder / "ILSVRC2012_img_val.tar", files)
    devkit(folder / "ILSVRC2012_devkit_t12.tar.gz", "\n".join(class_numbers))


def write_train(folder):
    """The training images: a tar of a tar for each class."""
    files = {}
    for index in range(CLASSES):
        wnid = WNIDS[index]
        photo = picture(index, EXTRA_WIDTH["imagenet_train"])
        files[f"{wnid}.tar"] = tar_bytes({f"{wnid}_0.JPEG": photo})
    tar(folder / "ILSVRC2012_img_train.tar", files)


def tar_bytes(files):
    """A tar archive of files, given as bytes by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_v2(folder):
    """ImageNet-V2, whose folders are class indices."""
    top = "imagenetv2-matched-frequency-format-val"
    extra_width = EXTRA_WIDTH["imagenet_v2"]
    files = {f"{top}/{index}/x.jpeg": picture(index, extra_width) for index in range(CLASSES)}
    tar(folder / "imagenetv2-matched-frequency.tar.gz", files)


def write_part_of_classes(folder, letter):
    """ImageNet-A or -R, which have 200 of the classes."""
    top = f"imagenet-{letter}/"
    indices = [index for (index,) in read_timm_list(f"imagenet_{letter}").indices]
    files = photos(top, indices, EXTRA_WIDTH[f"imagenet_{letter}"])
    tar(folder / f"imagenet-{letter}.tar", {f"{top}README.txt": b"x", **files})


def write_c(folder, corruptions):
    """ImageNet-C, whose corruptions are in four archives."""
    corruptions_of_archive = {
        "noise": corruptions[:3],
        "blur": corruptions[3:7],
        "weather": corruptions[7:11],
        "digital": corruptions[11:],
    }
    for archive, corruptions_in_it in corruptions_of_archive.items():
        files = {}
        for corruption in corruptions_in_it:
            for severity in SEVERITIES:
                for index in CLASSES_OF_C:
                    name = f"{corruption}/{severity}/{WNIDS[index]}/{val_name(index, 0)}"
                    files[name] = picture(index, EXTRA_WIDTH["imagenet_c"])
        tar(folder / f"{archive}.tar", files)


def write_archives(folder, catalog):
    """Write small archives into a folder, under their published names; gives them by name."""
    objectnets_label_space = catalog.label_space(catalog.datasets["objectnet"])
    write_train(folder)
    write_val(folder)
    write_v2(folder)
    write_part_of_classes(folder, "a")
    write_part_of_classes(folder, "r")
    sketches = photos("sketch/", range(CLASSES), EXTRA_WIDTH["imagenet_sketch"])
    zipped(folder / "ImageNet-Sketch.zip", sketches)
    encrypted(folder / "objectnet-1.0.zip", objectnet(objectnets_label_space), PASSWORD)
    cartoons = made_from_val("imagenet-cartoon/", EXTRA_WIDTH["imagenet_cartoon"])
    tar(folder / "imagenet-cartoon.tar.gz", cartoons, "w:gz")
    drawings = made_from_val("datasets/imagenet-drawing/", EXTRA_WIDTH["imagenet_drawing"])
    tar(folder / "imagenet-drawing.tar.gz", drawings, "w:gz")
    write_c(folder, catalog.datasets["imagenet_c"].settings["corruptions"])
    return {path.name: path for path in folder.iterdir()}


def use_archives(project, folder, address):
    """Let a project's catalogue state small archives, which are written into a folder.

    Args:
        address: of a server of the folder; what has to be fetched by hand is not served.
    """
    images = {**COUNTS, "imagenet_train": CLASSES}
    catalog = project.folder / "workflow/catalog"
    archives = write_archives(folder, Catalog([catalog]))
    datasets_file = catalog / "datasets.yaml"
    datasets = yaml.safe_load(datasets_file.read_text())
    for name, entry in datasets.items():
        point_at_archives(entry, archives, address)
        if name in images:
            entry["images"] = images[name]
    datasets_file.write_text(yaml.safe_dump(datasets, sort_keys=False))


def point_at_archives(entry, archives, address):
    """Let the entry of a dataset state what the archives are, and where they are served.

    Args:
        archives: by file name.
    """
    for source in [entry.get("source"), *entry.get("sources", [])]:
        if isinstance(source, dict) and source.get("file") in archives:
            archive = archives[source["file"]]
            source["digest"] = f"sha256:{sha256(archive)}"
            source["size"] = archive.stat().st_size
            urls = [f"{address}/missing", f"{address}/{archive.name}"]
            if source["kind"] == "http":
                source["urls"] = urls
            elif source["kind"] == "mirrors":
                source["mirrors"] = [{"kind": "http", "url": url} for url in urls]

"""The layout of photos with a list of authors, licences and labels."""

import csv
import hashlib
import io

import pytest

from rib.base.errors import UserError
from tiny.data.photos import INDICES, index_of, jpeg, run_prepare, tar

COLUMNS = [
    "ImageId",
    "URL",
    "TrueLabel",
    "OriginalLandingURL",
    "License",
    "Author",
    "AuthorProfileURL",
]
BY = "https://creativecommons.org/licenses/by/2.0/"


def line(photo_id, index, **changes):
    """A line of the list; `index` is the class's, from 0."""
    return {
        "ImageId": photo_id,
        "URL": f"https://example.org/{photo_id}.jpg",
        "TrueLabel": str(index + 1),
        "OriginalLandingURL": f"https://example.org/photos/{photo_id}",
        "License": BY,
        "Author": f"Author {photo_id[0]}",
        "AuthorProfileURL": f"https://example.org/people/{photo_id[0]}",
        **changes,
    }


# Two photos of each class; photos of an author begin with the same letter.
LINES = [line(f"{'ab'[n]}{index}", index) for index in INDICES for n in (0, 1)]


def listed(lines, columns=COLUMNS):
    """The list as a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def files_of(lines=LINES):
    """The published folder, made up: the list, and a picture that tells its class."""
    files = {"dataset/images.csv": listed(lines)}
    for entry in LINES:
        picture = jpeg(int(entry["TrueLabel"]) - 1, kind="PNG")
        files[f"dataset/images/{entry['ImageId']}.png"] = picture
    return files


def digests_of(files):
    """SHA-256 of files by the last part of their names."""
    return {
        name.rsplit("/", 1)[-1]: hashlib.sha256(content).hexdigest()
        for name, content in files.items()
    }


def prepared(folder, files, digests=None, **settings):
    """Prepare a folder of files; the digests are theirs unless given."""
    archive = tar(folder / "photos.tar", files)
    return run_prepare(
        folder,
        "nips2017",
        archive,
        file_digests=digests_of(files) if digests is None else digests,
        **settings,
    )


def test_labels_count_from_one_and_photos_of_one_author_are_one_object(tmp_path):
    index, images, _ = prepared(tmp_path, files_of(), expected=8)
    assert [INDICES[label] for label in index["label"]] == [index_of(image) for image in images]
    authors = index.groupby("object_id")["image_id"].apply(lambda ids: {name[0] for name in ids})
    assert authors.tolist() == [{"a"}, {"b"}]
    first = index.iloc[0]
    entry = next(entry for entry in LINES if entry["ImageId"] == first["image_id"])
    for part in (entry["Author"], entry["OriginalLandingURL"], "CC BY 2.0"):
        assert part in first["attribution"]


def test_the_attribution_is_kept_in_renditions_and_is_no_slice(tmp_path):
    files = files_of()
    archive = tar(tmp_path / "photos.tar", files)
    index, _, _ = run_prepare(
        tmp_path,
        "corruptions_of",
        archive,
        file_digests=digests_of(files),
        photos={"layout": "nips2017", "settings": {}},
        corruptions=["fog", "contrast"],
        severities=[1, 2],
        once=True,
        by_class=False,
    )
    assert index["attribution"].str.contains("CC BY").all()
    # By turns among all images, since a class has only two.
    turns = list(zip(index["corruption"], index["severity"], strict=True))
    assert turns[:4] == [("fog", 1), ("fog", 2), ("contrast", 1), ("contrast", 2)]
    assert turns[4:] == turns[:4]


def changed(photo_id, **changes):
    """The lines, with changes in the line of one photo."""
    return [{**entry, **changes} if entry["ImageId"] == photo_id else entry for entry in LINES]


@pytest.mark.parametrize(
    "lines, named",
    [
        (changed("a2", TrueLabel="0"), "a2"),
        (changed("b10", TrueLabel="1001"), "b10"),
        (changed("a2", TrueLabel="fox"), "a2"),
        (changed("b999", License="https://creativecommons.org/licenses/by-nc/2.0/"), "b999"),
        (changed("a2", Author=" "), "a2"),
        (changed("a101", OriginalLandingURL="javascript:alert(1)"), "a101"),
        ([*LINES, LINES[0]], "a2"),
        ([*LINES, line("c1", 2)], "c1"),
        (LINES[1:], "a2"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_the_photos_name(tmp_path, lines, named):
    with pytest.raises(UserError, match=named):
        prepared(tmp_path, files_of(lines))


@pytest.mark.parametrize("column", ["ImageId", "TrueLabel", "License", "Author"])
def test_a_list_without_a_column_is_refused_with_its_name(tmp_path, column):
    files = files_of()
    files["dataset/images.csv"] = listed(LINES, [name for name in COLUMNS if name != column])
    with pytest.raises(UserError, match=column):
        prepared(tmp_path, files)


def test_an_exchanged_and_a_cut_photo_are_refused_with_their_names(tmp_path):
    published = digests_of(files_of())
    for change in (jpeg(500, kind="PNG"), files_of()["dataset/images/b2.png"][:-20]):
        files = files_of()
        files["dataset/images/b2.png"] = change
        folder = tmp_path / hashlib.sha256(change).hexdigest()[:8]
        folder.mkdir()
        with pytest.raises(UserError, match=r"b2\.png"):
            prepared(folder, files, published)


def test_a_missing_photo_one_that_is_there_twice_and_a_strange_one_are_refused(tmp_path):
    changes = {
        "a10": lambda files: files.pop("dataset/images/a10.png"),
        "b10": lambda files: files.update({"copy/b10.png": files["dataset/images/b10.png"]}),
        "z1": lambda files: files.update({"dataset/images/z1.png": jpeg(2, kind="PNG")}),
    }
    for named, change in changes.items():
        files = files_of()
        change(files)
        (tmp_path / named).mkdir()
        with pytest.raises(UserError, match=named):
            prepared(tmp_path / named, files)


def test_another_list_than_the_published_one_is_refused(tmp_path):
    """A label that was changed to another class is a label that nobody would notice."""
    published = digests_of(files_of())
    with pytest.raises(UserError, match=r"images\.csv"):
        prepared(tmp_path, files_of(changed("a2", TrueLabel="11")), published)


def test_a_folder_without_the_list_is_refused(tmp_path):
    files = files_of()
    del files["dataset/images.csv"]
    with pytest.raises(UserError, match=r"images\.csv"):
        prepared(tmp_path, files)


def test_a_name_whose_bytes_are_written_in_octal_is_shown_in_its_letters(tmp_path):
    octal = "".join(f"\\{byte:03o}" for byte in "總統府".encode())
    index, _, _ = prepared(tmp_path, files_of(changed("a2", Author=octal)))
    shown = index.set_index("image_id")["attribution"]["a2"]
    assert shown.startswith("總統府, ")

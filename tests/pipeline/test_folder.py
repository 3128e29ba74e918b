"""Folders of class folders as people have them: links, foreign suffixes, thumbnails, names from other systems."""

import logging
import os
import pickle
import unicodedata
from pathlib import Path

import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import ImageFolder, open_source


def fill(folder: Path, *names: str) -> Path:
    """Empty files: nothing here looks into them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_source(folder, "train")
    message = str(caught.value)
    assert message.isprintable() and str(folder) in message
    return message


def of_class(source: ImageFolder, name: str) -> list[str]:
    """The files of a class, relative to its folder."""
    examples = [source[i] for i in range(len(source))]
    assert source.classes is not None
    label = source.classes.index(name)
    return [os.path.relpath(e.name, f"{source.name}/{name}") for e in examples if e.label == label]


# --- links ---


def test_linked_folders_are_followed_below_a_class_and_as_a_class(tmp_path: Path):
    fill(tmp_path / "elsewhere", "1.png", "deep/2.png")
    data = fill(tmp_path / "data", "cat/0.jpg", "horse/readme.txt")
    (data / "cat" / "pack").symlink_to(tmp_path / "elsewhere")
    (data / "horse" / "pack").symlink_to(tmp_path / "elsewhere")
    (data / "dog").symlink_to(tmp_path / "elsewhere")
    source = ImageFolder(data)
    assert source.classes == ("cat", "dog", "horse")
    assert of_class(source, "cat") == ["0.jpg", "pack/1.png", "pack/deep/2.png"]
    assert of_class(source, "dog") == ["1.png", "deep/2.png"]
    assert of_class(source, "horse") == ["pack/1.png", "pack/deep/2.png"]
    assert len(pickle.loads(pickle.dumps(source))) == 7


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "../dog"])
def test_links_back_to_a_folder_above_are_not_followed_and_counted(tmp_path: Path, target: str):
    data = fill(tmp_path / "data", "cat/1.jpg", "cat/sub/2.jpg", "dog/3.jpg")
    link = data / "cat" / "sub" / "back" if target == "sub" else data / "cat" / "back"
    link.symlink_to(link.parent.parent if target == "sub" else target)
    source = ImageFolder(data)
    inside = ["1.jpg", "sub/2.jpg"]
    if target == "../dog":  # not above it: a link as any other
        assert (of_class(source, "cat"), source.left_out) == (["1.jpg", "back/3.jpg", "sub/2.jpg"], {})
    else:
        assert (of_class(source, "cat"), source.left_out) == (inside, {"links back to a folder above": 1})


def test_two_folders_that_link_to_each_other_end(tmp_path: Path):
    data = fill(tmp_path / "data", "cat/1.jpg", "dog/2.jpg")
    (data / "cat" / "dogs").symlink_to("../dog")
    (data / "dog" / "cats").symlink_to("../cat")
    source = ImageFolder(data)
    assert of_class(source, "cat") == ["1.jpg", "dogs/2.jpg"]
    assert source.left_out == {"links back to a folder above": 2}


def test_a_folder_that_two_links_lead_to_counts_twice(tmp_path: Path):
    fill(tmp_path / "elsewhere", "1.png")
    data = fill(tmp_path / "data", "cat/0.png")
    for name in ("a", "b"):
        (data / "cat" / name).symlink_to(tmp_path / "elsewhere")
    assert of_class(ImageFolder(data), "cat") == ["0.png", "a/1.png", "b/1.png"]


def test_links_that_lead_nowhere_are_counted_and_a_class_of_them_refused(tmp_path: Path):
    data = fill(tmp_path / "data", "cat/0.png")
    (data / "cat" / "pack").symlink_to("gone")
    (data / "cat" / "self").symlink_to("self")
    assert ImageFolder(data).left_out == {"broken links": 2}
    (data / "dog").symlink_to("gone")
    assert "'dog' (broken links (1))" in refusal(data)


# --- what is left out ---


def test_what_is_left_out_is_said_at_the_start_by_kind_and_count(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = fill(
        tmp_path / "data",
        "cat/1.JPG",
        "cat/2.heic",
        "cat/3.HEIC",
        "cat/@eaDir/1.JPG/SYNOPHOTO_THUMB_M.jpg",
        "cat/Thumbs.db",
        "cat/.DS_Store",
        "cat/._1.JPG",
        "cat/notes",
        "dog/1.png",
        "__MACOSX/cat/1.jpg",
        ".git/cat/1.jpg",
        "loose.jpg",
        "photos.zip",
    )
    os.mkfifo(data / "dog" / "pipe.png")
    with caplog.at_level(logging.WARNING, "nfnet_eqx"):
        source = open_source(data, "train")
    assert isinstance(source, ImageFolder)
    assert len(source) == 2 and source.classes == ("cat", "dog")
    assert source.left_out == {
        "hidden": 3,
        ".heic": 2,
        "@eaDir": 1,
        "Thumbs.db": 1,
        "__MACOSX": 1,
        "other files": 1,
        ".jpg beside the class folders": 1,
        ".zip beside the class folders": 1,
        "devices and pipes": 1,
    }
    (line,) = caplog.messages
    assert line.startswith(f"{data}: left out: hidden (3), .heic (2), ")


def test_nothing_is_said_where_nothing_was_left_out(class_folder: Path, caplog: pytest.LogCaptureFixture):
    assert open_source(class_folder, "train").classes == ("a", "b", "c")
    assert not caplog.messages


def test_a_class_without_images_is_refused_with_the_reason(tmp_path: Path):
    data = fill(tmp_path / "data", "a/1.png", "b/1.heic", "b/2.heic", "c/.DS_Store")
    (data / "d").mkdir()
    message = refusal(data)
    assert "'b' (.heic (2)), 'c' (hidden (1)), 'd' (empty); save their images as JPEG or PNG" in message
    (data / "a" / "1.png").unlink()
    assert "holds no pictures" in refusal(data) and "'b' (.heic (2))" in refusal(data)


def test_a_folder_with_nothing_but_what_systems_leave_is_empty(tmp_path: Path):
    assert "holds no pictures" in refusal(fill(tmp_path / "data", ".DS_Store", "__MACOSX/._a/1.jpg"))


def test_a_folder_that_may_not_be_read_is_an_error_not_an_empty_one(
    class_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    closed, scandir = str(class_folder / "b" / "closed"), os.scandir
    Path(closed).mkdir()

    def refuse(path: str | os.PathLike[str]):
        if os.path.normpath(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root, to whom nothing is closed
    assert f"{closed}: cannot be read (Permission denied)" in refusal(class_folder)


# --- names ---


def test_names_that_no_checkpoint_can_hold_are_refused_before_anything_else(tmp_path: Path):
    data = fill(tmp_path / "data", "a\tb/1.png", "c/1.png")
    assert "class 0 must be plain text, got 'a\\tb'; rename the folder" in refusal(data)
    latin = os.fsdecode("Löwe".encode("latin-1"))
    data = fill(tmp_path / "from-windows", f"{latin}/1.png", "c/1.png")
    assert "(not UTF-8; as Latin-1 it is 'Löwe'); rename the folder" in refusal(data)


def test_names_of_either_unicode_form_are_the_same_classes_in_the_same_order(tmp_path: Path):
    names = ["Löwe", "Lux", "Zebra"]  # apart, "Lo..." comes before "Lux", composed after it
    sources = []
    for form in ("NFC", "NFD"):
        data = fill(tmp_path / form, *(f"{unicodedata.normalize(form, name)}/{name[0]}.png" for name in names))
        sources.append(open_source(data, "train"))
    first, second = sources
    assert first.classes == second.classes == ("Lux", "Löwe", "Zebra")
    assert [first[i].label for i in range(3)] == [second[i].label for i in range(3)] == [0, 1, 2]
    assert second[1].image == b""


def test_two_folders_of_one_name_in_two_forms_are_refused_with_their_code_points(tmp_path: Path):
    data = fill(tmp_path / "data", *(f"{unicodedata.normalize(form, 'Löwe')}/1.png" for form in ("NFC", "NFD")))
    message = refusal(data)
    assert "(L<U+00F6>we)" in message and "(Lo<U+0308>we)" in message and "rename the folder" in message


# --- archives beside class folders ---


def test_archives_win_over_class_folders_and_it_is_said(
    class_folder: Path, write_tar, jpegs: list[bytes], caplog: pytest.LogCaptureFixture
):
    write_tar(class_folder / "train-0.tar")
    write_tar(class_folder / "more.tar")
    (class_folder / "x.parquet").touch()
    assert len(open_source(class_folder, "train")) == 8
    (line,) = caplog.messages
    assert "folders beside .tar (3)" in line
    assert ".parquet beside .tar (1)" in line and ".tar without the name of a split (1)" in line


def test_an_archive_that_cannot_be_read_says_that_the_folders_were_passed_over(class_folder: Path, write_tar):
    write_tar(class_folder / "photos.tar", {"a/1.jpg": b"an archive of the folders themselves"})
    message = refusal(class_folder)
    assert "lack their .cls" in message
    assert "if the 3 folders beside photos.tar are the classes, move that away" in message

"""Names in a JSON and the files that they mean."""

import os
from pathlib import Path

import pytest

from brloss_d2.data.file_names import locate_all_images, locate_images
from brloss_d2.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("set/images/a.jpg", "set/images/day 1/Bär.JPG", "set/more/c.png", "set/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "set" / "images"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("../d.jpg", "../d.jpg"),
        ("A.JPG", "a.jpg"),
        (".\\a.jpg", "a.jpg"),
        ("day 1\\Bär.JPG", "day 1/Bär.JPG"),
        ("day 1/Ba\u0308r.JPG", "day 1/Bär.JPG"),
        ("Day 1/bär.jpg", "day 1/Bär.JPG"),
    ],
)
def test_names_as_other_systems_write_them(folder: Path, name: str, file: str) -> None:
    assert os.path.samefile(locate_images([name], str(folder))[0], folder / file)
    assert locate_images([str(folder / "a.jpg")], str(folder)) == [str(folder / "a.jpg")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c.png", "set data.val_images={root}/set/more"),
        ("images/a.jpg", "set data.val_images={root}/set"),
        ("set/images/a.jpg", "set data.val_images={root}"),
        ("Bär.JPG", "set data.val_images={root}/set/images/day 1"),
        ("/home/me/a.jpg", "paths of another machine; the files are in this folder"),
        ("C:\\me\\a.jpg", "paths of another machine; the files are in this folder"),
        ("train/a.jpg", "leave out what stands before a.jpg"),
        ("a.png", "There is a.jpg instead"),
        ("/upload/1a2b3c4d-a.jpg", "There is a.jpg instead"),
        (" a.jpg", "There is a.jpg instead"),
        ("%61.jpg", "There is a.jpg instead"),
        ("https://host/a.jpg", "download the images"),
        ("b.jpg", "Set data.val_images=FOLDER to the folder"),
        ("a\0.jpg", r"a\x00.jpg"),
        ("a\x1b[31m.jpg", r"a\x1b[31m.jpg"),
    ],
)
def test_missing_names_say_why(folder: Path, name: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        locate_all_images([name], str(folder), key="data.val")
    assert "1 of the 1 images of data.val are missing in" in str(error.value)
    assert expected.format(root=folder.parent.parent) in str(error.value)


def test_a_name_that_means_two_files_is_missing(folder: Path) -> None:
    (folder / "A.jpg").touch()
    with pytest.raises(InputError, match="missing"):
        locate_all_images(["A.JPG"], str(folder), key="data.train")


def test_a_file_that_another_name_means_is_not_the_missing_one(folder: Path) -> None:
    found = locate_images(["a.jpg", "A.jpg", "a.jpg"], str(folder))
    assert found == [str(folder / "a.jpg"), None, str(folder / "a.jpg")]
    assert locate_images(["A.JPG", "A.jpg"], str(folder)) == [None, None]


def test_folders_without_files(folder: Path) -> None:
    (folder / "new").mkdir()
    with pytest.raises(InputError, match="no files, or they cannot be listed"):
        locate_all_images(["a.jpg"], str(folder / "new"), key="data.train")
    with pytest.raises(InputError, match="this folder is a file; expected a folder"):
        locate_all_images(["a.jpg"], str(folder / "a.jpg"), key="data.train")
    with pytest.raises(InputError, match="this folder does not exist"):
        locate_all_images(["a.jpg"], str(folder / "gone"), key="data.train")


def test_another_folder_has_to_hold_the_other_images_too(folder: Path) -> None:
    with pytest.raises(InputError, match=r"Set data\.train_images=FOLDER"):
        locate_all_images(["a.jpg", "c.png"], str(folder), key="data.train")


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("gone.jpg", "Copy them there, or remove"), ("Bär.JPG", "They are in .*/day 1, the others")],
)
def test_a_few_are_missing(folder: Path, missing: str, expected: str) -> None:
    names = ["a.jpg", "day 1/Bär.JPG", missing, missing]
    with pytest.raises(InputError, match=rf"1 of the 3 images .*(?s:.*){expected}"):
        locate_all_images(names, str(folder), key="data.train")

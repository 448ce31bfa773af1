from pathlib import Path

import pytest

from brloss_d2.errors import InputError
from brloss_d2.utils.files import check_folder_of, check_not_input, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text in ("first", "second"):
        with replacing(str(file)) as temporary:
            Path(temporary).write_text(text)
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
    with pytest.raises(KeyError), replacing(str(file)) as temporary:
        Path(temporary).write_text("half")
        raise KeyError
    assert file.read_text() == "second"
    assert list(tmp_path.iterdir()) == [file], "no temporary file is left"


def test_the_folder_has_to_exist(tmp_path: Path) -> None:
    check_folder_of(str(tmp_path / "a.txt"))
    check_folder_of("a.txt")
    with pytest.raises(InputError, match=r"no folder .*missing to write a\.txt"):
        check_folder_of(str(tmp_path / "missing" / "a.txt"))


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    (tmp_path / "link").symlink_to(tmp_path)
    for same in (source, tmp_path / "b" / ".." / "a.png", tmp_path / "link" / "a.png"):
        with pytest.raises(InputError, match=r"a\.png would be replaced by a copy: choose another"):
            check_not_input(str(same), str(source), "a copy")
    check_not_input(str(tmp_path / "b.png"), str(source), "a copy")

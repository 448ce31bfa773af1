from pathlib import Path

import pytest

from brloss_d2.errors import InputError
from brloss_d2.utils.files import check_folder_of, replacing


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

"""What docs/architecture.md and CONTRIBUTING.md say of the code is so."""

import re

import pytest

from tests.docs.reading import ROOT
from tests.test_architecture import ALLOWED


def test_the_table_of_packages_is_that_of_the_imports() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", text.split("## Packages")[1], re.M)
    table = {name: set(re.findall(r"`(\w+)`", imports)) for name, imports in rows}
    assert table == ALLOWED


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_exist(document: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)
    paths = [path for path in re.findall(r"`([\w./]+)`", text) if "/" in path]
    assert len(paths) > 5
    roots = (ROOT, ROOT / "brloss_d2", ROOT / "brloss_d2" / "modeling")
    missing = [path for path in paths if not any((root / path).exists() for root in roots)]
    assert not missing

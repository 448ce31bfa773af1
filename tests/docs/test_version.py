"""Changelog, release text and citation are those of the version of the package."""

import yaml

import brloss_d2
from tests.docs.reading import ROOT


def test_documents_name_the_version() -> None:
    version = brloss_d2.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "docs" / "releases" / f"{version}.md").read_text().startswith(f"# {version}\n")

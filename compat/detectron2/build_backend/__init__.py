"""PEP 517 build backend that makes an ordinary `detectron2` wheel from a pinned PyPI wheel.

No file of detectron2 is kept here. `build_wheel` fetches the wheel named in `origin`, checks its
hash, takes detectron2's files out of it, renames their imports (`source`), patches what current
releases of Python and NumPy break (`patches`) and writes the result with its metadata (`wheel`).
"""

import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from build_backend import metadata, origin, source, wheel
from build_backend.errors import BuildError

ROOT = Path(__file__).resolve().parent.parent
SDIST_FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")


def build_wheel(
    wheel_directory: str,
    config_settings: dict | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Write the wheel into `wheel_directory` and return its file name."""
    with TemporaryDirectory() as scratch:
        try:
            files = source.detectron2_files(origin.fetch(Path(scratch)))
        except BuildError as error:
            sys.exit(f"\ndetectron2 (compat): {error}")  # one message, no traceback
    files |= metadata.dist_info(ROOT)
    wheel.write(Path(wheel_directory) / metadata.WHEEL_NAME, files)
    return metadata.WHEEL_NAME


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict | None = None
) -> str:
    """Write the .dist-info folder only, which needs no download; return its name."""
    for name, content in metadata.dist_info(ROOT).items():
        path = Path(metadata_directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return metadata.DIST_INFO


def build_sdist(sdist_directory: str, config_settings: dict | None = None) -> str:
    """Write this folder as a source archive and return its file name."""
    name = f"{metadata.STEM}.tar.gz"
    backend = sorted(path.relative_to(ROOT) for path in Path(__file__).parent.glob("*.py"))
    with tarfile.open(Path(sdist_directory) / name, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in [*map(Path, SDIST_FILES), *backend]:
            archive.add(ROOT / path, f"{metadata.STEM}/{path.as_posix()}")
        wheel.add_to_tar(archive, f"{metadata.STEM}/PKG-INFO", metadata.core_metadata(ROOT))
    return name

"""Name, version, requirements and the .dist-info files of the wheel."""

from pathlib import Path

COMMIT = "b7ff946"  # of facebookresearch/detectron2, 2024-01-26; its own version is 0.6
STEM = f"detectron2-0.6+{COMMIT}"
DIST_INFO = f"{STEM}.dist-info"
WHEEL_NAME = f"{STEM}-py3-none-any.whl"
LICENSE_FILES = ("LICENSE", "NOTICE")

# detectron2 does not require torch and torchvision: users choose their build of them.
# OpenCV is optional upstream, but detectron2.engine imports it.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "opencv-python-headless",
    "packaging",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

_WHEEL = """\
Wheel-Version: 1.0
Generator: brloss_d2 compat/detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""


def core_metadata(root: Path) -> bytes:
    """Return the METADATA (PKG-INFO) text; the description is the README in `root`."""
    fields = [
        ("Metadata-Version", "2.4"),
        ("Name", "detectron2"),
        ("Version", f"0.6+{COMMIT}"),
        ("Summary", "Detectron2's Python files, without the compiled extension"),
        ("Author", "Facebook AI Research"),
        ("Project-URL", "Upstream, https://github.com/facebookresearch/detectron2"),
        ("License-Expression", "Apache-2.0"),
        *(("License-File", name) for name in LICENSE_FILES),
        ("Requires-Python", ">=3.10"),
        *(("Requires-Dist", requirement) for requirement in REQUIREMENTS),
        ("Description-Content-Type", "text/markdown"),
    ]
    header = "".join(f"{key}: {value}\n" for key, value in fields)
    return f"{header}\n{(root / 'README.md').read_text(encoding='utf-8')}".encode()


def dist_info(root: Path) -> dict[str, bytes]:
    """Return the .dist-info files except RECORD, which depends on all others."""
    files = {"METADATA": core_metadata(root), "WHEEL": _WHEEL.encode()}
    files |= {f"licenses/{name}": (root / name).read_bytes() for name in LICENSE_FILES}
    return {f"{DIST_INFO}/{name}": content for name, content in files.items()}

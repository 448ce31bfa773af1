"""Install all requirements of brloss_d2: `python requirements/install.py .venv`.

detectron2 is not on PyPI. If the virtual environment or the running Python has one, it is used
together with the torch that it was built for, and only what is missing is installed, in any version
that fits. Otherwise everything is installed in the versions of lock.txt, with the detectron2 of
compat/. This program needs the standard library only.

`python requirements/install.py .venv-oldest oldest` installs the versions of oldest.txt instead,
`newest` the newest ones there are, each with what is needed to run tests and no more.
"""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPAT = ROOT / "compat" / "detectron2"
TEST_RUNNER = ("pytest>=8.0", "pytest-xdist>=3.5")
LINK = "brloss_d2_detectron2.pth"  # makes the packages of another environment importable

# Prints the version of a distribution if its module can be imported, without importing it.
_VERSION_OF = """
import importlib.metadata as m, importlib.util as u, sys
spec = u.find_spec(sys.argv[1])
if spec and spec.origin:  # a folder of that name is no package
    try: print(m.version(sys.argv[1]))
    except m.PackageNotFoundError: print("unknown")
"""
_SITE_PACKAGES = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


def main(folder: str, versions: str = "pinned") -> None:
    """Create the environment in `folder` if needed and install into it."""
    python = make_environment(Path(folder).absolute())
    lock = str(ROOT / "requirements" / "lock.txt")
    if versions != "pinned":
        chosen = {
            "oldest": ["-c", str(ROOT / "requirements" / "oldest.txt")],
            "newest": ["--upgrade", "--upgrade-strategy", "eager"],
        }[versions]
        say(f"Installing the {versions} versions, 5 GB with torch and its CUDA libraries.")
        pip_install(python, *chosen, "-e", str(ROOT), str(COMPAT), *TEST_RUNNER)
        return say(f"Ready: {folder}")
    if find_foreign_detectron2(python):
        use_detectron2(python)
    else:
        say("Installing the pinned packages. The first time these are 5 GB, most of it torch with")
        say("its CUDA libraries, and take from one minute to several.")
        pip_install(python, "-c", lock, "-e", f"{ROOT}[test]", str(COMPAT))
    pip_install(python, "--no-deps", "-c", lock, "-r", str(ROOT / "requirements" / "no_deps.txt"))
    say(f"Ready: {folder}")


def make_environment(folder: Path) -> Path:
    """Return the Python of the virtual environment; create it if it has no working pip."""
    python = folder / "bin" / "python"
    if not python.exists() or not version_of(python, "pip"):
        say(f"Creating {folder} with Python {sys.version.split()[0]}")
        # As a command: venv's own advice on a missing ensurepip reaches the user.
        if subprocess.run([sys.executable, "-m", "venv", str(folder)]).returncode != 0:
            sys.exit(f"Cannot create the virtual environment {folder}; see above.")
    return python


def find_foreign_detectron2(python: Path) -> bool:
    """Return whether there is a detectron2 other than that of compat/; make it importable."""
    link = Path(ask(python, _SITE_PACKAGES)) / LINK
    inside = version_of(python, "detectron2")
    if inside:
        return link.exists() or inside != compat_version()
    if not version_of(Path(sys.executable), "detectron2"):
        link.unlink(missing_ok=True)
        return False
    # addsitedir also reads the .pth files there: an editable detectron2 is one of those.
    folders = site.getsitepackages() + [site.getusersitepackages()] * bool(site.ENABLE_USER_SITE)
    link.write_text("".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders))
    return True


def use_detectron2(python: Path) -> None:
    """Install what is missing next to the detectron2 of the user; keep its torch."""
    say("Using the detectron2 that is installed; installing what else is missing.")
    versions = {name: version_of(python, name) for name in ("torch", "torchvision")}
    kept = [f"{name}=={version}\n" for name, version in versions.items() if version]
    constraints = python.parent.parent / "constraints.txt"
    constraints.write_text("".join(kept))
    # detectron2.engine imports OpenCV, which detectron2 does not require.
    opencv = [] if version_of(python, "cv2") else ["opencv-python-headless"]
    pip_install(python, "-c", str(constraints), "-e", f"{ROOT}[test]", *opencv)


def compat_version() -> str:
    """Return the version of the detectron2 in compat/."""
    text = (COMPAT / "build_backend" / "metadata.py").read_text(encoding="utf-8")
    return "0.6+" + re.search(r'^COMMIT = "(\w+)"', text, re.MULTILINE).group(1)


def version_of(python: Path, name: str) -> str:
    """Return the version of a package that can be imported there, "" if none can."""
    return ask(python, _VERSION_OF, name)


def ask(python: Path, program: str, *arguments: str) -> str:
    """Return the output of a short program in another Python."""
    command = [str(python), "-c", program, *arguments]
    here = Path(__file__).parent  # no module here shadows an installed one
    return subprocess.run(command, cwd=here, stdout=subprocess.PIPE, text=True).stdout.strip()


def pip_install(python: Path, *arguments: str) -> None:
    """Run `pip install`, showing only the downloads of several megabytes; exit if it fails."""
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = [str(python), "-m", "pip", "install", *options, *arguments]
    quieter = {**os.environ, "PIP_USE_PEP517": "1"}  # the pip of Python 3.10 warns otherwise
    last_lines: deque[str] = deque(maxlen=12)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quieter) as process:
        for line in process.stdout:
            show(line.strip())
            last_lines.append(line)
    if process.returncode != 0:
        say("pip stopped after:\n" + "".join(last_lines))
        sys.exit("The installation failed, see above. `make` continues where it stopped.")


def show(line: str) -> None:
    """Print the lines of pip's output that show its progress."""
    if re.match(r"Downloading .* \([0-9.]+ [MG]B\)", line):
        say("  " + line)
    elif line.startswith("Installing collected packages"):
        say(f"  Installing {line.count(',') + 1} packages")


def say(text: str) -> None:
    """Print without buffering, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The part of the packaging that pyproject.toml cannot express: projects and the model zoo."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Projects of the repository, installed as brloss_d2.projects.<name>.
PROJECTS = {
    f"brloss_d2.projects.{path.parent.name}": path.parent.relative_to(ROOT).as_posix()
    for path in ROOT.glob("projects/*/*/__init__.py")
}
# What brloss_d2.model_zoo reads; without a working copy, from brloss_d2/model_zoo/files.
MODEL_ZOO = ("configs/**/*", "projects/*/configs/**/*")


class BuildWithModelZoo(build_py):
    """Copies the configs into the package with their folders, since they refer to each other."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in sorted(path for pattern in MODEL_ZOO for path in ROOT.glob(pattern)):
            if path.is_file() and path.suffix in (".py", ".yaml"):
                target = Path(self.build_lib, "brloss_d2/model_zoo/files", path.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))


setup(
    packages=[
        *find_packages(include=["brloss_d2", "brloss_d2.*"]),
        *PROJECTS,
        *(f"{name}.{part}" for name, path in PROJECTS.items() for part in find_packages(path)),
    ],
    package_dir=PROJECTS,
    cmdclass={"build_py": BuildWithModelZoo},
)

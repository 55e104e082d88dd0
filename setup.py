"""Puts into a wheel what pyproject.toml cannot name: files from outside the package, and the commit that has them."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SHIPPED = ("workflow", "config", "profiles", "environment.yml")

sys.path.insert(0, str(HERE / "src"))
from spaced_kd.training import code_commit  # noqa: E402  needs the standard library alone


class Build(build_py):
    """Copies the package and what is shipped with it; an editable installation uses the checkout's own files."""

    def run(self) -> None:
        """Build into an empty folder: files of an earlier build would stay in the wheel."""
        if self.editable_mode:
            return super().run()
        package = Path(self.build_lib) / "spaced_kd"
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        for name in SHIPPED:
            source, target = HERE / name, package / "shipped" / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "*~", "__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        commit, dirty = code_commit.commit()
        if commit != "unknown":
            code_commit.stamp(package, commit, bool(dirty))
        return None


setup(cmdclass={"build_py": Build})

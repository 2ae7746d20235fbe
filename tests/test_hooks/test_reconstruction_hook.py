import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmconvmae.hooks.reconstruction_hook as hooks_module
from mmconvmae.datasets.image_file import ImageFileError
from mmconvmae.hooks import ReconstructionHook
from mmconvmae.models import ConvMAE
from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner

ARCH = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=2, mlp_ratios=(2, 2, 2))
MODEL = dict(
    type='mmconvmae.ConvMAE',
    backbone=dict(type='mmconvmae.ConvMAEViT', arch=ARCH, img_size=(48, 64)),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=16, depth=1, num_heads=2),
    head=dict(type='mmconvmae.ConvMAEPretrainHead'),
)


def make_images(folder, number):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        noise.resize((85, 64), Image.Resampling.BICUBIC).save(folder / f'{index} ü.png')
    return str(folder)


def run(tmp_path, name, hooks=(), model=MODEL):
    base = dict(
        model=model,
        data_preprocessor=dict(type='mmconvmae.ImageDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
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


def test_pictures_of_a_run_with_complementary_masks_and_partial_prediction(tmp_path, folders):
    """One mask of each held-out image, of which all removed patches are predicted, as in a run without either."""
    hook = dict(type='mmconvmae.ReconstructionHook', data_root=folders, interval=1, num_drawn=2, batch_size=2)
    model = dict(
        MODEL,
        neck=dict(MODEL['neck'], predict_ratio=0.5),
        mask_generator=dict(type='mmconvmae.ComplementaryMaskGenerator'),
    )
    other = run(tmp_path, 'other', [hook], model)
    usual = run(tmp_path, 'usual', [hook])
    for runner in (usual, other):
        runner.model.load_state_dict(usual.model.state_dict())
        runner.visualizer.add_scalars = Mock()
        next(hook for hook in runner.hooks if isinstance(hook, ReconstructionHook)).after_train_epoch(runner)
    usual, other = (runner.visualizer.add_scalars.call_args.args[0] for runner in (usual, other))
    assert other == usual


def test_a_run_with_pictures_is_the_run_without(tmp_path, folders):
    hook = dict(type='mmconvmae.ReconstructionHook', data_root=folders, interval=1, num_drawn=2, batch_size=2)
    without, with_hook = run(tmp_path, 'without'), run(tmp_path, 'with', [hook])
    lines = scalars(with_hook)
    losses = [[line['loss'] for line in lines if 'loss' in line] for lines in (scalars(without), lines)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    weights = with_hook.model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in without.model.state_dict().items())

    held_out = [line for line in lines if 'held_out/loss' in line]
    # As in the lines of training before them, so that one chart can have both.
    assert [line['step'] for line in held_out] == [2, 4]
    # The masks are the same each time, so what needs no model costs the same.
    assert held_out[0]['held_out/loss_of_zero'] == held_out[1]['held_out/loss_of_zero']
    assert held_out[0]['held_out/loss'] != held_out[1]['held_out/loss']
    log = Path(with_hook.log_dir, f'{with_hook.timestamp}.log').read_text()
    assert f'Epoch 2, 5 held-out images: loss {held_out[1]["held_out/loss"]:.4f}; predicting zero would cost' in log
    for epoch in (1, 2):
        own = Image.open(tmp_path / 'with' / 'reconstructions' / f'epoch_{epoch}.png').convert('RGB')
        of_backend = Image.open(Path(with_hook.log_dir, 'vis_data', 'vis_image', f'held_out_{epoch}.png'))
        assert own.size == (1500, round(150 * (2 * 2 * 48 / 64 + 0.8)))
        np.testing.assert_array_equal(np.asarray(own), np.asarray(of_backend))


def test_losses_are_those_of_the_formula(tmp_path, folders, monkeypatch):
    masks = []

    def generate_mask(model, inputs):
        mask = original(model, inputs)
        if not model.training:
            masks.append(mask)
        return mask

    original = ConvMAE.generate_mask
    monkeypatch.setattr(ConvMAE, 'generate_mask', generate_mask)
    runner = run(tmp_path, 'run', [dict(type='mmconvmae.ReconstructionHook', data_root=folders, batch_size=2)])
    (line,) = [line for line in scalars(runner) if 'held_out/loss' in line]
    assert [len(mask.ids_predict) for mask in masks] == [2, 2, 1] and runner.model.training

    images = []
    for index in range(5):
        image = np.asarray(Image.open(f'{folders}/{index} ü.png'))  # as high as the longer edge of what is cut out
        images.append(image[8:56, 10:74] / 60.0 - 2)
    patches = np.stack(images).reshape(5, 3, 16, 4, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(5, 12, 256, 3)
    mean, var = patches.mean((2, 3), keepdims=True), patches.var((2, 3), keepdims=True, ddof=1)
    targets = (patches - mean) / np.sqrt(var + 1e-6)
    model = runner.model.eval()
    zero, colour, loss, start = [], [], [], 0
    for mask in masks:
        inputs = torch.tensor(np.stack(images[start : start + 2]), dtype=torch.float32).permute(0, 3, 1, 2)
        with torch.no_grad():
            predictions = model.neck(model.backbone(inputs, mask), mask).numpy()
        for ids, prediction in zip(mask.ids_predict.numpy(), predictions):
            target = targets[start][ids]  # (9, 256, 3)
            zero.append((target**2).mean())
            colour.append(((target - target.mean(1, keepdims=True)) ** 2).mean())
            loss.append(((target.reshape(9, 768) - prediction) ** 2).mean())
            start += 1
    assert line['held_out/loss_of_zero'] == pytest.approx(np.mean(zero), abs=1e-5)
    assert line['held_out/loss_of_own_colour'] == pytest.approx(np.mean(colour), abs=1e-5)
    assert line['held_out/loss'] == pytest.approx(np.mean(loss), abs=1e-5)


@pytest.fixture
def held_out(tmp_path):
    """A hook with five images, and a runner whose model takes images of these units."""

    def held_out(mean=120.0, std=60.0, **kwargs):
        hook = ReconstructionHook(make_images(tmp_path / 'held_out', 5), **kwargs)
        preprocessor = dict(type='mmconvmae.ImageDataPreprocessor', mean=[mean] * 3, std=[std] * 3)
        return hook, SimpleNamespace(model=MODELS.build(dict(MODEL, data_preprocessor=preprocessor)))

    return held_out


def test_what_does_not_fit_stops_the_run_before_it_starts(held_out, tmp_path):
    hook, runner = held_out(0.0, 1.0)
    hook.before_train(runner)  # 8 bits fit every mean
    deep = (np.random.default_rng(0).random((50, 70)) * 60000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / 'held_out' / '2 ü.png')
    with pytest.raises(ValueError, match=r'The held-out images .*0 ü\.png and .*2 ü\.png have different depths'):
        hook.before_train(runner)
    for path in hook.paths:
        Image.fromarray(deep).save(path)
    with pytest.raises(ValueError, match='do not fit; give them in the units of the files'):
        hook.before_train(runner)
    Path(hook.paths[3]).write_bytes(b'')
    with pytest.raises(ImageFileError, match=r'ü\.png'):
        hook.before_train(runner)
    with pytest.raises(TypeError, match='the model is a Linear; leave the hook out'):
        hook.before_train(SimpleNamespace(model=torch.nn.Linear(1, 1)))


def test_other_processes_do_nothing_and_a_wrapped_model_is_taken_out(held_out, tmp_path, monkeypatch):
    hook, runner = held_out(num_drawn=1)
    model = runner.model
    runner = SimpleNamespace(
        model=torch.nn.DataParallel(model),
        epoch=9,
        iter=20,
        max_epochs=20,
        work_dir=tmp_path,
        visualizer=Mock(),
        logger=Mock(),
    )
    runner.visualizer.add_image.side_effect = lambda *args, **kwargs: pictures.append(args)
    pictures = []
    monkeypatch.setattr(hooks_module, 'is_main_process', lambda: False)
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    assert not pictures and not hasattr(hook, 'images')
    monkeypatch.setattr(hooks_module, 'is_main_process', lambda: True)
    hook.before_train(runner)
    state = torch.get_rng_state()
    hook.after_train_epoch(runner)
    assert len(pictures) == 1 and torch.equal(torch.get_rng_state(), state)
    runner.epoch = 10  # not one of every tenth, nor the last
    hook.after_train_epoch(runner)
    assert len(pictures) == 1


def test_images_are_taken_from_all_over_the_folder(tmp_path):
    for name in 'abcd':
        make_images(tmp_path / name, 4)
    hook = ReconstructionHook(str(tmp_path), num_images=9, num_drawn=3)
    paths = [Path(path).relative_to(tmp_path).as_posix() for path in hook.paths]
    assert len(set(paths)) == 9 and {path[0] for path in paths} == set('abcd')
    assert paths[0] == 'a/0 ü.png' and paths[1][0] in 'bc' and paths[2] == 'd/3 ü.png'
    assert len(ReconstructionHook(str(tmp_path)).paths) == 16


def test_faults_of_the_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'There is no folder .*nowhere'):
        ReconstructionHook(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='There is no image in'):
        ReconstructionHook(str(tmp_path))
    for name in ('num_images', 'num_drawn', 'batch_size'):
        with pytest.raises(ValueError, match=f'{name} is 0; give 1 or more'):
            ReconstructionHook(str(tmp_path), **{name: 0})

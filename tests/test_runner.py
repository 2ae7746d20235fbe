import copy
import errno
import math
import time
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from helpers import CONFIGS, load
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS, RUNNERS

import mmconvmae  # noqa: F401


@MODELS.register_module()
class LineModel(BaseModel):
    """A model whose parameters are groups of their own, those of its second layer with another learning rate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 1), nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.second(self.first(inputs)).square().mean())


@DATASETS.register_module()
class PointDataset(torch.utils.data.Dataset):
    def __init__(self, number):
        self.points = torch.arange(2.0 * number).view(number, 2) / number

    def __len__(self):
        return len(self.points)

    def __getitem__(self, i):
        return self.points[i]


@HOOKS.register_module()
class RateHook(Hook):
    """Keeps the learning rates of both layers in each iteration."""

    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates[runner.iter] = groups[0]['lr'], groups[-1]['lr']


WARMUP = dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=4, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', by_epoch=True, begin=4, eta_min_ratio=1e-3, convert_to_iter_based=True)
EPOCH_WARMUP = dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=4)
EPOCH_COSINE = dict(type='CosineAnnealingLR', by_epoch=True, begin=4, eta_min_ratio=1e-3)
ITER_WARMUP = dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=7)
POLY = dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=0)
WHOLE_COSINE = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
STEPS = dict(type='MultiStepLR', by_epoch=True, milestones=[3, 5], gamma=0.1)
SCHEDULES = {
    'pretraining': [WARMUP, COSINE],
    'whole epochs': [EPOCH_WARMUP, EPOCH_COSINE],
    'detection': [ITER_WARMUP, WHOLE_COSINE],
    'segmentation': [ITER_WARMUP, POLY],
    'steps': [ITER_WARMUP, STEPS],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.2, by_epoch=True, convert_to_iter_based=True)],
    'one': COSINE | dict(begin=0),
    'none': None,
}


@pytest.fixture
def make(tmp_path):
    """Makes a runner: its schedulers, folder, number of images and length, and what else is in the config."""

    def make(schedulers, folder='run', images=5, epochs=6, iters=None, kind='mmconvmae.ScheduleRunner', **more):
        by_epoch = iters is None
        config = dict(
            model=dict(type='LineModel'),
            work_dir=str(tmp_path / folder),
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                dataset=dict(type='PointDataset', number=images),
                sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs) if by_epoch else dict(by_epoch=False, max_iters=iters),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1, momentum=0.9),
                paramwise_cfg=dict(custom_keys=dict(second=dict(lr_mult=0.3))),
            ),
            param_scheduler=schedulers,
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 6)
            ),
            log_processor=dict(by_epoch=by_epoch),
            custom_hooks=[dict(type='RateHook')],
            default_scope='mmengine',
            randomness=dict(seed=0),
            runner_type=kind,
            experiment_name=f'test_{time.monotonic_ns()}',
        )
        config.update(more)
        return RUNNERS.build(Config(copy.deepcopy(config)))

    return make


def rates(runner):
    """The rates of the iterations that a run makes, by their number."""
    runner.train()
    return next(hook for hook in runner.hooks if isinstance(hook, RateHook)).rates


def log(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


def since(values, iteration):
    return {i: value for i, value in values.items() if i >= iteration}


def closed_form(warmup, length, lr=0.1, start=1e-4, floor=1e-3):
    """A linear rise, then half a cosine."""
    rise = [lr * (start + (1 - start) * i / (warmup - 1)) for i in range(warmup)]
    fall = (math.cos(math.pi * i / (length - warmup)) for i in range(length - warmup))
    return rise + [lr * (floor + (1 - floor) * (1 + value) / 2) for value in fall]


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_run_with_room_for_its_warmup_has_mmengines_rates(make, name):
    expected = rates(make(SCHEDULES[name], 'theirs', kind='Runner'))
    assert rates(make(SCHEDULES[name])) == expected and len(expected) == 30


@pytest.mark.parametrize(
    'epochs, warmup',
    [(1, 0), (2, 2), (3, 3), (4, 4)],  # of 5, 10, 15 and 20 iterations a fifth, of which 1 is too short
)
def test_warmup_takes_a_fifth_of_a_run_that_it_does_not_fit(make, epochs, warmup):
    runner = make([WARMUP, COSINE], epochs=epochs)
    values = rates(runner)
    assert [first for first, _ in values.values()] == pytest.approx(closed_form(warmup, 5 * epochs), rel=1e-12)
    assert [second for _, second in values.values()] == pytest.approx([0.3 * first for first, _ in values.values()])
    assert f'The warm-up of 20 iterations takes {warmup}, because the run has {5 * epochs} in all.' in log(runner)


def test_warmup_that_ends_between_epochs(make):
    """It ends after 13/23 epochs, whose product with 23 is below 13 in floating point."""
    values = rates(make([WARMUP, COSINE], images=23, epochs=3))
    assert [first for first, _ in values.values()] == pytest.approx(closed_form(13, 69), rel=1e-12)


def test_warmup_in_whole_epochs(make):
    """Of 12 epochs a fifth is 2."""
    schedule = [EPOCH_WARMUP | dict(end=40), EPOCH_COSINE | dict(begin=40)]
    values = rates(make(schedule, images=2, epochs=12))
    expected = [rate for rate in closed_form(2, 12) for _ in range(2)]
    assert [first for first, _ in values.values()] == pytest.approx(expected, rel=1e-12)


def test_warmup_in_iterations(make):
    """Of 12 iterations a fifth is 2; the polynomial goes over the whole run, as in the segmentors' configs."""
    runner = make([ITER_WARMUP | dict(end=1500), POLY], iters=12)
    values = rates(runner)
    fall = [0.1 * (1 - i / 11) for i in range(12)]
    fall[0] *= 1e-4
    assert [first for first, _ in values.values()] == pytest.approx(fall, rel=1e-9, abs=1e-12)
    assert 'The warm-up of 1500 iterations takes 2, because the run has 12 in all.' in log(runner)


@pytest.mark.parametrize('schedule', [[WARMUP, COSINE], [EPOCH_WARMUP, EPOCH_COSINE], [ITER_WARMUP, WHOLE_COSINE]])
def test_run_of_one_iteration(make, schedule):
    assert rates(make(schedule, images=1, epochs=1)) == {0: (0.1, 0.03)}


def test_image_folder_config_with_twenty_epochs(make):
    config = load(next(name for name in CONFIGS if name.endswith('image-folder')))
    runner = make(config.param_scheduler, epochs=20)
    values = rates(runner)
    assert [first for first, _ in values.values()] == pytest.approx(closed_form(20, 100, floor=0.0), rel=1e-9)
    assert 'The warm-up of 200 iterations takes 20, because the run has 100 in all.' in log(runner)


@pytest.mark.parametrize(
    'name',
    [
        'convmae_convvit-base-p16_8xb256-amp-coslr-200e_in1k',
        'convvit-base-p16_8xb128-coslr-100e_in1k',
        'convvit-base-p16_8xb512-linear-coslr-90e_in1k',
        'mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco',
        'mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco',
        'upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512',
    ],
)
def test_schedules_of_the_papers_configs_are_mmengines(make, name):
    config = load(name)
    built = []
    for kind in (config.runner_type, 'Runner'):
        # 500 iterations are an epoch, so that 461 are a warm-up.
        runner = make(config.param_scheduler, images=500, kind=kind, train_cfg=config.train_cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        built.append([scheduler.state_dict() for scheduler in runner.build_param_scheduler(config.param_scheduler)])
    assert built[0] == built[1]
    if 'milestones' not in built[0][-1]:
        assert built[0][-1]['end'] == runner.max_iters


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('before, after', [(6, 9), (9, 6), (6, 3)])
def test_resumed_with_another_length(make, tmp_path, name, before, after):
    """From where it goes on it has the rates of a run that was that long from the start, to the last digit."""
    whole = rates(make(SCHEDULES[name], 'whole', epochs=after))
    rates(make(SCHEDULES[name], 'part', epochs=before))
    checkpoint = str(tmp_path / 'part' / 'epoch_2.pth')
    resumed = make(SCHEDULES[name], 'resumed', epochs=after, load_from=checkpoint, resume=True)
    assert rates(resumed) == since(whole, 10) and len(whole) == 5 * after
    told = f'(length {before} -> {after} epochs; ' in log(resumed)
    assert told == (name != 'none')


@pytest.mark.parametrize('before, after', [(18, 30), (30, 18)])
def test_resumed_with_another_number_of_iterations(make, tmp_path, before, after):
    schedule = [ITER_WARMUP, POLY]
    whole = rates(make(schedule, 'whole', iters=after))
    rates(make(schedule, 'part', iters=before))
    resumed = make(schedule, 'resumed', iters=after, load_from=str(tmp_path / 'part' / 'iter_12.pth'), resume=True)
    assert rates(resumed) == since(whole, 12) and len(whole) == after
    assert f'(length {before} -> {after} iters; end of PolyLR {before} -> {after}); it goes' in log(resumed)


def test_resumed_as_the_base_config_does(make):
    """By the last checkpoint of the folder, after the run has ended."""
    whole = rates(make([WARMUP, COSINE], 'whole', epochs=9))
    rates(make([WARMUP, COSINE], 'run', resume=True))
    assert rates(make([WARMUP, COSINE], 'run', epochs=9, resume=True)) == since(whole, 30)


@pytest.mark.parametrize('name', SCHEDULES)
def test_resumed_as_it_was(make, tmp_path, name):
    whole = make(SCHEDULES[name], 'whole')
    expected = rates(whole)
    resumed = make(SCHEDULES[name], 'resumed', load_from=str(tmp_path / 'whole' / 'epoch_2.pth'), resume=True)
    assert rates(resumed) == since(expected, 10)
    assert 'The schedule is that of the config' not in log(resumed)
    last = [torch.load(tmp_path / run / 'epoch_6.pth', weights_only=False) for run in ('whole', 'resumed')]
    assert last[0].get('param_schedulers') == last[1].get('param_schedulers')
    assert last[0]['optimizer']['param_groups'] == last[1]['optimizer']['param_groups']


@pytest.mark.parametrize('name', ['pretraining', 'none'])
@pytest.mark.parametrize(
    'changed, said',
    [
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05))), '0.1 -> 0.05'),
        (dict(auto_scale_lr=dict(enable=True, base_batch_size=4)), '0.1 -> 0.025'),
    ],
)
def test_resumed_with_another_learning_rate(make, tmp_path, name, changed, said):
    changed.get('optim_wrapper', {}).update(paramwise_cfg=dict(custom_keys=dict(second=dict(lr_mult=0.3))))
    whole = rates(make(SCHEDULES[name], 'whole', **changed))
    rates(make(SCHEDULES[name], 'part'))
    checkpoint = str(tmp_path / 'part' / 'epoch_2.pth')
    resumed = make(SCHEDULES[name], 'resumed', load_from=checkpoint, resume=True, **changed)
    assert rates(resumed) == since(whole, 10)
    assert said in log(resumed)


@pytest.mark.parametrize('images', [3, 7])
def test_resumed_with_other_images(make, tmp_path, images):
    """Epochs count, so that it goes on from another iteration; gradients still accumulate up to the last one."""
    more = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3))
    whole = rates(make([WARMUP, COSINE], 'whole', images=images, **more))
    rates(make([WARMUP, COSINE], 'part', **more))
    checkpoint = str(tmp_path / 'part' / 'epoch_2.pth')
    resumed = make([WARMUP, COSINE], 'resumed', images=images, load_from=checkpoint, resume=True, **more)
    assert rates(resumed) == since(whole, 2 * images)


def test_resumed_from_the_middle_of_an_epoch(make, tmp_path):
    """mmengine begins the epoch anew; with another length its iterations are numbered anew too."""
    whole = rates(make([WARMUP, COSINE], 'whole', epochs=9))
    rates(
        make(
            [WARMUP, COSINE],
            'part',
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=13)),
        )
    )
    checkpoint = str(tmp_path / 'part' / 'iter_13.pth')
    resumed = make([WARMUP, COSINE], 'resumed', epochs=9, load_from=checkpoint, resume=True)
    assert rates(resumed) == since(whole, 10)


@pytest.mark.parametrize('before, after', [('none', 'pretraining'), ('pretraining', 'none'), ('one', 'pretraining')])
def test_resumed_with_another_schedule(make, tmp_path, before, after):
    whole = rates(make(SCHEDULES[after], 'whole'))
    rates(make(SCHEDULES[before], 'part'))
    checkpoint = str(tmp_path / 'part' / 'epoch_2.pth')
    assert rates(make(SCHEDULES[after], 'resumed', load_from=checkpoint, resume=True)) == since(whole, 10)


@pytest.mark.parametrize('epochs', [6, 4])
def test_run_that_is_complete_already(make, epochs):
    rates(make([WARMUP, COSINE]))
    again = make([WARMUP, COSINE], epochs=epochs, resume=True)
    assert rates(again) == {}
    assert f'has 6 epochs and the run {epochs}, so that it is complete already; to go on, raise' in log(again)


@HOOKS.register_module()
class PoisonWeightsHook(Hook):
    def before_train_epoch(self, runner):
        runner.model.first.bias.data.fill_(float('nan'))


def test_checkpoint_of_version_0_1_gives_its_weights_alone(make, tmp_path):
    make(SCHEDULES['one'], epochs=1).train()
    path = tmp_path / 'run' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['state_dict']['backbone.patch_embeds.0.norm.bias'] = torch.zeros(1)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r'epoch_1\.pth is of mmconvmae 0\.1, .* with `load_from` and `resume=False`'):
        make(SCHEDULES['one'], epochs=2, resume=True).train()
    make(SCHEDULES['one'], folder='other', epochs=1, load_from=str(path)).train()


def test_error_names_the_checkpoint_that_the_run_went_on_from(make, tmp_path):
    """What a checkpoint knows of the last one is the one before it."""
    optim_wrapper = dict(type='mmconvmae.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    rates(make(None, optim_wrapper=optim_wrapper))
    checkpoint = str(tmp_path / 'run' / 'epoch_2.pth')
    hooks = [dict(type='PoisonWeightsHook')]
    again = make(None, optim_wrapper=optim_wrapper, load_from=checkpoint, resume=True, custom_hooks=hooks)
    with pytest.raises(FloatingPointError, match=r'iteration 11 \(epoch 3, .*Last good checkpoint: .*epoch_2\.pth\. '):
        again.train()


def test_gradients_that_accumulate_count_in_the_learning_rate(make):
    """Three images make a step here, and the rate is for twelve."""
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    scaling = dict(enable=True, base_batch_size=12)
    runner = make(None, optim_wrapper=optim_wrapper, auto_scale_lr=scaling)
    assert list(rates(runner).values()) == 30 * [pytest.approx((0.025, 0.025))]
    assert 'A step has the gradients of 3 batches. Scaling the LR by 3 too.' in log(runner)
    runner = make(None, optim_wrapper=optim_wrapper, auto_scale_lr=dict(scaling, enable=False))
    assert list(rates(runner).values()) == 30 * [(0.1, 0.1)]


def damage(path, how):
    content = path.read_bytes()
    if how == 'gone':
        path.unlink()
    else:
        path.write_bytes(dict(truncated=content[: len(content) // 2], zeroed=bytes(len(content)), empty=b'')[how])


@pytest.mark.parametrize('how', ['truncated', 'zeroed', 'empty', 'gone'])
def test_last_checkpoint_that_cannot_be_read(make, tmp_path, how):
    """The run goes on from the one before, and ends with the weights of one that nothing happened to."""
    whole = make(SCHEDULES['whole epochs'])
    whole.train()
    damage(tmp_path / 'run' / 'epoch_6.pth', how)
    runner = make(SCHEDULES['whole epochs'], resume=True)
    assert len(rates(runner)) == 5
    assert 'epoch_6.pth' in log(runner) and 'The run goes on from the checkpoint before.' in log(runner)
    for parameter, expected in zip(runner.model.parameters(), whole.model.parameters()):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=0)


def test_checkpoint_that_was_being_written_is_passed_over(make, tmp_path):
    make(None, epochs=2).train()
    (tmp_path / 'run' / 'epoch_3.pth').write_bytes(b'PK')
    runner = make(None, epochs=4, resume=True)
    runner.train()
    assert 'epoch_2.pth' in log(runner) and 'checkpoint before' not in log(runner)


def test_killed_while_the_first_checkpoint_was_written(make, tmp_path, monkeypatch):
    """What there is of it is no checkpoint, so the run begins anew."""

    def stop(checkpoint, filename, **kwargs):
        Path(filename).write_bytes(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr('mmengine.runner.runner.save_checkpoint', stop)
    with pytest.raises(KeyboardInterrupt):
        make(None, epochs=1).train()
    monkeypatch.undo()
    make(None, epochs=1, resume=True).train()
    assert [path.name for path in (tmp_path / 'run').glob('*.pth*')] == ['epoch_1.pth']


def test_work_directory_that_was_moved(make, tmp_path):
    """The file that names the last checkpoint has the old path."""
    make(None, epochs=2).train()
    (tmp_path / 'run').rename(tmp_path / 'moved')
    runner = make(None, 'moved', epochs=3, resume=True)
    assert len(rates(runner)) == 5
    assert 'moved/epoch_2.pth' in log(runner) and 'checkpoint before' not in log(runner)


def test_no_checkpoint_that_can_be_read(make, tmp_path):
    make(None, epochs=2).train()
    for epoch in (1, 2):
        damage(tmp_path / 'run' / f'epoch_{epoch}.pth', 'truncated')
    with pytest.raises(
        ValueError, match=r'No checkpoint in .*run is whole, .*; to begin anew, take another `work_dir`'
    ):
        make(None, epochs=4, resume=True).train()


def test_last_checkpoint_is_not_named(make, tmp_path):
    """A kill may leave the file that names it empty."""
    make(None, epochs=3).train()
    (tmp_path / 'run' / 'last_checkpoint').write_text('')
    runner = make(None, epochs=4, resume=True)
    runner.train()
    assert 'epoch_3.pth' in log(runner)


def test_checkpoint_that_cannot_be_written(make, tmp_path, monkeypatch):
    """Half of it is on the disk when the disk is full."""
    make(None, epochs=1).train()

    def fill(checkpoint, filename, **kwargs):
        Path(filename).write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('mmengine.runner.runner.save_checkpoint', fill)
    with pytest.raises(OSError, match=r'epoch_2\.pth could not be written to .*run \(No space left on device\); make'):
        make(None, epochs=2, resume=True).train()
    monkeypatch.undo()
    assert not (tmp_path / 'run' / 'epoch_2.pth').exists()
    runner = make(None, epochs=2, resume=True)
    runner.train()
    assert 'epoch_1.pth' in log(runner) and (tmp_path / 'run' / 'epoch_2.pth').exists()

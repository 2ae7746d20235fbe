import copy
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import mmpretrain
import pytest
import torch
from helpers import CONFIGS, ROOT, needs_torch, write_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, RUNNERS
from mmengine.utils import is_installed

from mmconvmae.checkpoint import read_checkpoint
from mmconvmae.registry import MODELS

KILL_PLUGIN = """
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 14:  # the third of six batches of epoch 3
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_and_resumed_run_equals_an_uninterrupted_one(train_config, tmp_path, read_losses, run_tool, monkeypatch):
    (tmp_path / 'kill_plugin.py').write_text(KILL_PLUGIN)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    config = train_config()
    whole = run_tool('train.py', config, '--work-dir', tmp_path / 'whole')
    assert whole.returncode == 0, whole.stderr

    deadly = tmp_path / 'deadly.py'
    deadly.write_text(
        f"""
_base_ = {str(config)!r}
custom_imports = dict(imports=['mmconvmae', 'kill_plugin'])
custom_hooks = [*_base_.custom_hooks, dict(type='KillHook', priority='LOWEST')]
"""
    )
    killed = run_tool('train.py', deadly, '--work-dir', tmp_path / 'killed')
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / 'killed' / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    before = read_losses(tmp_path / 'killed')
    assert len(before) == 15

    resumed = run_tool('train.py', config, '--work-dir', tmp_path / 'killed')
    assert resumed.returncode == 0, resumed.stderr
    assert 'resumed epoch: 2, iter: 12' in resumed.stdout
    losses = read_losses(tmp_path / 'whole')
    assert len(losses) == 18 and len(set(losses.values())) == 18
    assert read_losses(tmp_path / 'killed') == losses
    assert before == {i: loss for i, loss in losses.items() if i in before}
    weights = [
        torch.load(tmp_path / run / 'epoch_3.pth', weights_only=False)['state_dict'] for run in ('whole', 'killed')
    ]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


RECORD_PLUGIN = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RecordHook(Hook):
    def before_train(self, runner):
        self.paths, self.masks = [], []
        model = runner.model.module
        generate = model.generate_mask

        def record(inputs):
            mask = generate(inputs)
            self.masks.append(mask.removed)
            return mask

        model.generate_mask = record

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.paths += [sample.img_path for sample in data_batch['data_samples']]

    def after_train(self, runner):
        content = dict(paths=self.paths, masks=torch.stack(self.masks), weights=runner.model.module.state_dict())
        torch.save(content, f'{runner.work_dir}/rank{get_rank()}.pt')
"""


def test_help_does_not_mislead_mim(run_tool):
    """mim looks for the name of an option of older scripts in the help, and then passes another one that they had."""
    result = run_tool('train.py', '-h')
    assert result.returncode == 0 and '--gpus' not in result.stdout


@pytest.mark.skipif(is_installed('openmim'), reason='openmim 0.3 does not find the tools of an editable installation')
def test_two_processes_on_a_cpu(train_config, tmp_path):
    (tmp_path / 'record_plugin.py').write_text(RECORD_PLUGIN)
    config = train_config(
        """
        custom_imports = dict(imports=['mmconvmae', 'record_plugin'])
        custom_hooks = [*_base_.custom_hooks, dict(type='RecordHook')]
        """
    )
    result = subprocess.run(
        [sys.executable, '-m', 'mim', 'train', 'mmconvmae', config, '--launcher', 'pytorch', '--gpus', '2'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(tmp_path), CUDA_VISIBLE_DEVICES=''),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = (torch.load(tmp_path / 'work' / f'rank{rank}.pt', weights_only=False) for rank in (0, 1))
    for epoch in range(3):
        paths = [set(part['paths'][12 * epoch : 12 * (epoch + 1)]) for part in (first, second)]
        assert len(paths[0]) == len(paths[1]) == 12 and not paths[0] & paths[1]
    assert not any(torch.equal(a, b) for a, b in zip(first['masks'], second['masks']))
    for name, value in first['weights'].items():
        assert torch.equal(value, second['weights'][name]), name


def test_resume_with_another_number_of_processes(train_config, tmp_path, run_tool):
    """The third epoch has the images and the rates of a run that had two processes from the start."""
    (tmp_path / 'record_plugin.py').write_text(RECORD_PLUGIN)
    config = train_config(
        """
        custom_imports = dict(imports=['mmconvmae', 'record_plugin'])
        custom_hooks = [*_base_.custom_hooks, dict(type='RecordHook')]
        model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
        """
    )
    env = dict(os.environ, PYTHONPATH=str(tmp_path), CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')

    def train(work_dir, processes, *options):
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
        args = [ROOT / 'tools' / 'train.py', config, '--launcher', 'pytorch', '--work-dir', work_dir, *options]
        result = subprocess.run([sys.executable, *launch, *args], capture_output=True, text=True, env=env)
        assert result.returncode == 0, result.stdout + result.stderr
        logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
        rates = [json.loads(line)['lr'] for line in logs[-1].read_text().splitlines()]
        seen = [torch.load(work_dir / f'rank{rank}.pt', weights_only=False)['paths'] for rank in range(processes)]
        return result.stdout + result.stderr, rates, seen

    _, whole_rates, whole_seen = train(tmp_path / 'whole', 2)
    train(tmp_path / 'other', 1, '--cfg-options', 'train_cfg.max_epochs=2')
    said, rates, seen = train(tmp_path / 'other', 2)
    assert 'resumed epoch: 2, iter: 12' in said and 'The schedule is that of the config' in said
    assert len(whole_rates) == 9 and rates == pytest.approx(whole_rates[-3:], rel=1e-12)
    assert seen == [paths[-12:] for paths in whole_seen]


# As in the config for huge, for a CPU: whole checkpoints cannot be taken to where they are already.
FSDP = """
        runner_type = 'FlexibleRunner'
        policy = dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=5000)
        strategy = dict(
            type='mmconvmae.FSDPStrategy',
            model_wrapper=dict(auto_wrap_policy=policy, device_id='cpu'),
            state_dict_cfg=dict(
                state_dict_type='FULL_STATE_DICT',
                state_dict_config=dict(type='FullStateDictConfig', rank0_only=True),
                optim_state_dict_config=dict(type='FullOptimStateDictConfig'),
            ),
        )
        optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0))
        """


@needs_torch('2.6', 'this PyTorch may not divide weights among processes without a GPU')  # tried with 2.10
def test_divided_weights_on_a_cpu(train_config, tmp_path, read_losses):
    """Two processes that share the weights go on from their checkpoint, which is a whole one.

    Not to the last digit: what PyTorch gathers of AdamW's averages on a CPU is wrong, so losses differ in the fourth.
    """
    config = train_config(FSDP)
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')

    def train(work_dir):
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
        args = [ROOT / 'tools' / 'train.py', config, '--launcher', 'pytorch', '--work-dir', work_dir]
        result = subprocess.run([sys.executable, *launch, *args], capture_output=True, text=True, env=env)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    train(tmp_path / 'whole')
    shutil.copytree(tmp_path / 'whole', tmp_path / 'again', ignore=shutil.ignore_patterns('epoch_3.pth', '2*'))
    (tmp_path / 'again' / 'last_checkpoint').write_text(str(tmp_path / 'again' / 'epoch_2.pth'))
    assert 'resumed epoch: 2' in train(tmp_path / 'again')
    losses, again = read_losses(tmp_path / 'whole'), read_losses(tmp_path / 'again')
    assert len(losses) == 9 and again == pytest.approx({i: losses[i] for i in (7, 8, 9)}, rel=1e-3)
    assert again[7] == pytest.approx(losses[7], rel=1e-6)
    model = MODELS.build(Config.fromfile(config).model)
    model.load_state_dict(read_checkpoint(tmp_path / 'again' / 'epoch_3.pth')['state_dict'])


def test_slurm_is_mims(train_config, tmp_path):
    """`mim train mmconvmae CONFIG --launcher slurm` hands the training script to srun as it is."""
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\necho srun "$@"\n')
    srun.chmod(0o755)
    config = train_config()
    command = ['train', 'mmconvmae', config, '--launcher', 'slurm', '--partition', 'gpu', '--gpus', '8']
    result = subprocess.run(
        [sys.executable, '-m', 'mim', *command, '--gpus-per-node', '4', '--srun-args', '--time=60'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ, PATH=f'{srun.parent}:{os.environ["PATH"]}'),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith('srun ')]
    assert '-p gpu' in line and '--gres=gpu:4' in line and '--ntasks=8' in line
    assert 'tools/train.py' in line and f'{config} --launcher slurm' in line


def train(config):
    config = Config.fromfile(config)
    config.experiment_name = f'test_{time.monotonic_ns()}'
    RUNNERS.build(config).train()


def test_truncated_image_in_the_folder(train_config, photos, tmp_path):
    folder = tmp_path / 'images'
    shutil.copytree(photos / 'train', folder)
    image = folder / '00007.png'
    image.write_bytes(image.read_bytes()[:2000])
    config = train_config(f'train_dataloader.update(dataset=dict(data_root={str(folder)!r}, pipeline=train_pipeline))')
    with pytest.raises(OSError, match=r'The image .*00007\.png is unreadable or truncated'):
        train(config)


@pytest.mark.parametrize('exists', [True, False])
def test_folder_without_images(train_config, tmp_path, exists):
    folder = tmp_path / 'images'
    if exists:
        folder.mkdir()
        (folder / 'notes.txt').write_text('no image')
    config = train_config(f'train_dataloader.update(dataset=dict(data_root={str(folder)!r}, pipeline=train_pipeline))')
    with pytest.raises(Exception) as caught:
        train(config)
    assert str(folder) in str(caught.value)
    assert ('0 images are in' if exists else 'There is no folder') in str(caught.value)


@HOOKS.register_module()
class PoisonHook(Hook):
    """Makes the second batch of epoch 2 one whose loss is not finite, and keeps what there was before it."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.epoch, batch_idx) == (1, 1):
            PoisonHook.before = copy.deepcopy(runner.model.state_dict())
            PoisonHook.model = runner.model
            data_batch['inputs'] = data_batch['inputs'] * float('nan')


def test_loss_that_is_not_finite_stops_the_run_before_the_weights_move(train_config, tmp_path):
    config = train_config("custom_hooks = [*_base_.custom_hooks, dict(type='PoisonHook')]")
    with pytest.raises(FloatingPointError, match=r'loss is nan in iteration 8 \(epoch 2, .*Last good .*epoch_1\.pth'):
        train(config)
    for name, value in PoisonHook.model.state_dict().items():
        assert torch.equal(value, PoisonHook.before[name]), name
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.parametrize(
    'flags',
    [
        [],
        ['--no-validate', '--no-pin-memory'],
        ['--auto-scale-lr', '--no-persistent-workers'],
        ['--amp', '--cfg-options', 'train_dataloader.pin_memory=False', 'optim_wrapper.optimizer.lr=1.0'],
    ],
)
def test_flags_do_what_they_do_in_mmpretrains_script(digits_config, tmp_path, monkeypatch, flags):
    """Both scripts hand the same config to the runner that it names."""
    config = write_config(
        tmp_path / 'other.py',
        f"""
        _base_ = {str(digits_config('linear'))!r}
        auto_scale_lr = dict(enable=False)
        """,
    )
    monkeypatch.syspath_prepend(ROOT / 'tools')
    configs = []
    monkeypatch.setattr(RUNNERS, 'build', lambda config: configs.append(config.to_dict()) or mock.Mock())
    for script in (ROOT / 'tools' / 'train.py', Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'):
        monkeypatch.setattr(sys, 'argv', ['train.py', str(config), '--work-dir', str(tmp_path / 'work'), *flags])
        runpy.run_path(script, run_name='__main__')
    ours, theirs = configs
    assert ours == theirs and ours['runner_type'] == 'mmconvmae.ScheduleRunner'


def test_learning_rate_without_its_batch_size(tmp_path, run_tool):
    config = write_config(tmp_path / 'config.py', 'model = dict()')
    result = run_tool('train.py', config, '--auto-scale-lr')
    assert result.returncode == 1 and 'set `auto_scale_lr.base_batch_size` in the config.' in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_twenty_epochs_of_a_folder_on_a_cpu(photos, tmp_path):
    """Through mmpretrain, with nothing but the folder, the length and what makes it small: a fifth is the warm-up."""
    base = next(path for name, path in CONFIGS.items() if name.endswith('image-folder'))
    config = write_config(
        tmp_path / 'small.py',
        f"""
        _base_ = {str(base)!r}
        arch = dict(_delete_=True, embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=2, mlp_ratios=(2, 2, 2))
        model = dict(backbone=dict(arch=arch), neck=dict(embed_dims=16, depth=1, num_heads=2))
        train_dataloader = dict(num_workers=0)
        default_hooks = dict(logger=dict(interval=1))
        """,
    )
    options = ['--work-dir', tmp_path / 'work', '--cfg-options', 'train_cfg.max_epochs=20']
    options += [f'train_dataloader.dataset.data_root={photos / "val"}']
    result = subprocess.run(
        [sys.executable, '-m', 'mim', 'train', 'mmpretrain', config, '--gpus', '0', *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES=''),
    )
    assert result.returncode == 0, result.stderr
    assert 'Training in float32: autocast to bfloat16 needs a GPU' in result.stdout
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    rates = [json.loads(line)['lr'] for line in log.read_text().splitlines()]
    top = 1.5e-4 * 256 / 256  # of the batch size of one process; all images are one batch, so an epoch is an iteration
    rise = [top * (1e-4 + (1 - 1e-4) * i / 3) for i in range(4)]
    fall = [top * (1 + math.cos(math.pi * i / 16)) / 2 for i in range(16)]
    assert rates == pytest.approx(rise + fall, rel=1e-6)

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

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


def train(config):
    config = Config.fromfile(config)
    config.experiment_name = f'test_{time.monotonic_ns()}'
    Runner.from_cfg(config).train()


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
    assert ('Found 0 files' if exists else 'No such file or directory') in str(caught.value)


@HOOKS.register_module()
class PoisonHook(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            next(runner.model.parameters()).data.fill_(float('nan'))


def test_loss_that_is_not_finite_stops_the_run(train_config, tmp_path):
    config = train_config("custom_hooks = [*_base_.custom_hooks, dict(type='PoisonHook')]")
    with pytest.raises(FloatingPointError, match=r'loss is nan in batch 1 of epoch 2 .*Last good .*epoch_1\.pth'):
        train(config)
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == ['epoch_1.pth']

import argparse
import os

import numpy as np
import pytest
import torch
from helpers import CONFIGS, library_of, require
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import scheduler
from mmengine.runner import CheckpointLoader

from mmconvmae.checkpoint import config_of, read_checkpoint, read_state_dict, write_checkpoint
from mmconvmae.registry import MODELS


def test_read_keeps_the_authors_arguments_harmless(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(model=dict(a=torch.ones(2)), args=argparse.Namespace(lr=0.1)), path)
    assert torch.equal(read_state_dict(path, 'model')['a'], torch.ones(2))


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_read_truncated_file(golden, tmp_path, share):
    content = golden('official_tiny_pretrain.pth').read_bytes()
    path = tmp_path / 'truncated.pth'
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r'truncated\.pth is truncated or not a PyTorch checkpoint .*; fetch it again'):
        read_state_dict(path, 'model')


def test_read_file_of_another_kind(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2)), meta={}), path)
    with pytest.raises(ValueError, match=r"no parameters under 'model' \(it holds state_dict, meta\)"):
        read_state_dict(path, 'model')


def test_write_leaves_nothing_half_written(tmp_path):
    with pytest.raises(AttributeError):
        write_checkpoint(dict(cannot_be_saved=lambda: None), tmp_path / 'new' / 'checkpoint.pth')
    assert list((tmp_path / 'new').iterdir()) == []


def test_read_what_mmengine_keeps_of_a_run(tmp_path):
    hub = MessageHub('test_read_what_mmengine_keeps_of_a_run')
    hub.update_scalar('train/loss', 0.5)
    hub.update_info('iter', 3)
    states = dict(message_hub=hub.state_dict(), rates=[np.float64(0.1), np.float32(0.1), np.int64(3)])
    torch.save(dict(state_dict=dict(a=torch.ones(2)), **states), tmp_path / 'epoch_1.pth')
    assert torch.equal(read_state_dict(tmp_path / 'epoch_1.pth', 'state_dict')['a'], torch.ones(2))


class RunsCode:
    def __reduce__(self):
        return os.system, ('echo run',)


class ReachesForCode:
    """The first step of a way to code through what an allow-list with a free `getattr` lets in."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.min, '__globals__')


class ReachesIntoInstances:
    def __reduce__(self):
        return getattr, ([], 'append')


@pytest.mark.parametrize(
    ('stranger', 'name'),
    [(RunsCode(), r'\w+\.system'), (ReachesForCode(), 'getattr'), (ReachesIntoInstances(), 'getattr')],
)
@pytest.mark.parametrize('read', [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_read_runs_nothing(tmp_path, stranger, name, read):
    path = tmp_path / 'stranger.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2)), other=stranger), path)
    with pytest.raises(ValueError, match=rf'stranger\.pth holds {name}, an object that could run code'):
        read(str(path))


def test_init_cfg_runs_nothing(tmp_path, small_arch):
    path = tmp_path / 'stranger.pth'
    torch.save(dict(state_dict={}, other=RunsCode()), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = MODELS.build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, init_cfg=init_cfg))
    with pytest.raises(ValueError, match='an object that could run code'):
        model.init_weights()


def test_every_schedule_of_mmengine(tmp_path):
    """What is read is what was written, types included."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    kinds = dict(
        MultiStepLR=dict(milestones=[2, 4]),
        OneCycleLR=dict(eta_max=0.1, total_steps=10),
        StepLR=dict(step_size=2),
        PolyLR=dict(power=0.9, end=10),
        LinearLR=dict(end=10),
        CosineAnnealingLR=dict(T_max=10),
        CosineRestartLR=dict(periods=[5, 5], restart_weights=[1, 0.5], eta_min=0.0),
        ExponentialLR=dict(gamma=0.9),
        ReduceOnPlateauLR=dict(monitor='loss'),
    )
    states = {name: getattr(scheduler, name)(optimizer, **kinds[name]).state_dict() for name in kinds}
    torch.save(dict(param_schedulers=states), tmp_path / 'epoch_1.pth')
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['param_schedulers'] == states


def test_read_what_is_no_dict(tmp_path):
    torch.save([torch.ones(2)], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth holds list and no parameters; is it the right kind of file\?'):
        read_checkpoint(tmp_path / 'list.pth')


@pytest.mark.parametrize('name', ['mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco', 'convvit-base-p16_8xb128'])
def test_config_of_a_checkpoint_is_what_was_written(name):
    (name,) = (config for config in CONFIGS if config.startswith(name))
    require(library_of(name))
    config = Config.fromfile(CONFIGS[name])
    assert config_of(dict(meta=dict(cfg=config.pretty_text))) == config.to_dict()


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('a = dict({1: dict(b=[1, (2, -3.5)])})', dict(a={1: dict(b=[1, (2, -3.5)])})),
        ("a = dict(b=None, **{'c': 'd'})", dict(a=dict(b=None, c='d'))),
        ("import os\nos.system('x')\na = os.system('x')\nb = [__import__('os')]\nc = dict(d=dict(open('x')))", {}),
        ('a = dict(1)\nb = dict(**3)\nc = dict([1])\nd = {**{}}\na.b = 1\na, b = 1, 2', {}),
        ('a = ' + '(' * 500 + ')' * 500, {}),
        ('no Python', {}),
    ],
)
def test_config_of_a_checkpoint_is_data_alone(text, expected):
    assert config_of(dict(meta=dict(cfg=text))) == expected


@pytest.mark.parametrize('content', [{}, dict(meta=None), dict(meta={}), dict(meta=dict(cfg=3))])
def test_checkpoint_without_config(content):
    assert config_of(content) == {}
    assert config_of(dict(meta=dict(cfg=dict(a=1)))) == dict(a=1)

import argparse
import logging
import os
import sys
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import CONFIGS, library_of, require
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import scheduler
from mmengine.runner import CheckpointLoader

from mmconvmae.checkpoint import (
    DamagedCheckpointError,
    config_of,
    read_checkpoint,
    read_state_dict,
    write_checkpoint,
)
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


def test_safetensors_are_what_its_own_library_writes_and_reads(tmp_path):
    tensors = dict(a=torch.randn(2, 3), b=torch.arange(4), c=torch.randn(2).bfloat16())
    theirs, ours = tmp_path / 'theirs.safetensors', tmp_path / 'new' / 'ours.safetensors'
    safetensors.torch.save_file(tensors, theirs, dict(format='pt'))
    content = read_checkpoint(theirs)
    assert content['meta'] == dict(format='pt')
    for read in (content['state_dict'], read_state_dict(theirs, 'model', 'state_dict')):
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], x) and read[name].dtype == x.dtype for name, x in tensors.items())
    # Tied and transposed parameters, which the format does not know, and the config, which load_backbone goes by.
    tensors.update(tied=tensors['a'], transposed=tensors['a'].t())
    write_checkpoint(dict(state_dict=tensors, meta=dict(cfg='a = dict(b=1)', epoch=3), optimizer={}), ours)
    read = safetensors.torch.load_file(ours)
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], x) for name, x in tensors.items())
    assert config_of(read_checkpoint(ours)) == dict(a=dict(b=1))
    assert [path.name for path in ours.parent.iterdir()] == ['ours.safetensors']


def test_what_is_left_out_of_safetensors_is_said(tmp_path, caplog, monkeypatch):
    logger = logging.getLogger('test_what_is_left_out')
    monkeypatch.setattr('mmconvmae.checkpoint.files.MMLogger.get_current_instance', lambda: logger)
    content = dict(state_dict=dict(a=torch.ones(2)), optimizer={}, meta=dict(epoch=1, cfg='a = 1'))
    with caplog.at_level(logging.INFO):
        write_checkpoint(content, tmp_path / 'a.safetensors')
    assert caplog.messages == [
        f'{tmp_path / "a.safetensors"} holds parameters and texts alone; left out: optimizer, meta.epoch.'
    ]
    with pytest.raises(ValueError, match=r'no parameters to write to .*b\.safetensors'):
        write_checkpoint(dict(optimizer={}), tmp_path / 'b.safetensors')
    assert not list(tmp_path.glob('*b.safetensors*'))


@pytest.mark.parametrize('read', [read_checkpoint, CheckpointLoader.load_checkpoint])
def test_damaged_safetensors(tmp_path, read):
    path = tmp_path / 'a.safetensors'
    content = safetensors.torch.save(dict(a=torch.ones(100)))
    nonsense = (b'', content[:5], content[:200], (2**40).to_bytes(8, 'little') + content[8:], b'{}' * 50)
    for damaged in nonsense:
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError) as error:
            read(str(path))
        assert 'a.safetensors is truncated or no .safetensors file (' in str(error.value)
        assert str(error.value).endswith('); fetch it again.') and '\n' not in str(error.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'a\.safetensors'):
        read(str(path))


@pytest.mark.parametrize('device', [None, 'cpu', torch.device('cpu'), lambda storage, location: storage])
def test_devices_of_safetensors(tmp_path, device):
    safetensors.torch.save_file(dict(a=torch.ones(2)), tmp_path / 'a.safetensors')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.safetensors'), map_location=device)
    assert content['state_dict']['a'].device.type == 'cpu'


def test_init_cfg_takes_safetensors(tmp_path, small_arch, small_config, build):
    """Of a backbone with the checkpoint of pretraining, and of pretraining itself with `pretrained`."""
    pretrained = build(small_config)
    path = str(tmp_path / 'a.safetensors')
    safetensors.torch.save_file(pretrained.state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    backbone = MODELS.build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, init_cfg=init_cfg))
    other = MODELS.build(dict(small_config, pretrained=path))
    for model, expected in ((backbone, pretrained.backbone), (other, pretrained)):
        model.init_weights()
        loaded, expected = model.state_dict(), expected.state_dict()
        assert len(expected) > 20 and all(torch.equal(loaded[name], x) for name, x in expected.items())


@pytest.mark.parametrize('use', [read_checkpoint, partial(write_checkpoint, dict(state_dict=dict(a=torch.ones(2))))])
def test_without_safetensors(tmp_path, monkeypatch, use):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(ValueError, match=r'a\.safetensors needs another package: pip install safetensors$'):
        use(tmp_path / 'a.safetensors')
    assert not list(tmp_path.iterdir())

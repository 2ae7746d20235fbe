import importlib
import json
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers import CONFIGS, ROOT, require, write_config

from mmconvmae.models import ConvViT
from mmconvmae.utils import count_parameters


@pytest.fixture
def tool(monkeypatch):
    """The tool as a module."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return importlib.import_module('backbone_cost')


@pytest.fixture
def run(tool, monkeypatch, capsys):
    """Runs the tool in this process and gives what it prints, or its error."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['backbone_cost.py', *map(str, args)])
        try:
            tool.main()
        except SystemExit as error:
            return error.code
        return capsys.readouterr().out

    return run


@pytest.fixture
def classifier(tmp_path, small_arch):
    """A config of a small classifier, whose checkpoint is missing."""
    return write_config(
        tmp_path / 'classifier.py',
        f"""
        default_scope = 'mmpretrain'
        custom_imports = dict(imports=['mmconvmae'])
        model = dict(
            type='ImageClassifier',
            backbone=dict(
                type='mmconvmae.ConvViT',
                arch={small_arch},
                img_size=64,
                init_cfg=dict(type='Pretrained', checkpoint='missing.pth'),
            ),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
        )
        """,
    )


class Plain(nn.Module):
    """Convolution, linear layer and attention; perhaps with a look at the values."""

    def __init__(self, looks):
        super().__init__()
        self.conv, self.linear, self.looks = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 24), looks

    def forward(self, x):
        x = self.conv(x)
        if self.looks and x.max().item() == 0:
            return x
        q, k, v = self.linear(x.flatten(2).mT).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize('looks', [False, True])
def test_multiply_adds_by_hand(tool, looks):
    positions = 8 * 12
    expected = positions * 8 * 3 * 9 + positions * 8 * 24 + 2 * positions**2 * 8
    assert tool.forward_multiply_adds(Plain(looks), torch.randn(1, 3, 16, 24)) == expected


def cells(text):
    """Cells of a Markdown table's rows, by the first of each."""
    rows = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ')]
    return {name: values for name, *values in rows[2:]}


def test_figures_of_classifiers(run, classifier, small_arch, tmp_path):
    out = tmp_path / 'out'
    printed = run(
        f'a={classifier}', f'b={classifier}', '--size', 64, 96, '--rounds', 2, '--what', 'train', '--out', out
    )
    report = json.loads((out / 'backbone_cost.json').read_text())
    assert report['size'] == [64, 96]
    parameters = count_parameters(ConvViT(small_arch, img_size=64))
    for row, name in zip(report['rows'], 'ab', strict=True):
        assert (row['name'], row['config'], row['backbone']) == (name, str(classifier), 'ConvViT')
        assert row['backbone_parameters'] == parameters
        assert row['parameters'] == parameters + 32 * 10 + 10
        assert row['backbone_multiply_adds'] > 0
        assert len(row['train_all_ms']) == 2 and row['train_ms'] == sum(row['train_all_ms']) / 2
        assert row['train_peak_gib'] > row['train_added_gib'] >= 0
        assert cells(printed)[name] == [
            f'{row["parameters"] / 1e6:.2f}',
            f'{row["backbone_parameters"] / 1e6:.2f}',
            f'{row["backbone_multiply_adds"] / 1e9:.2f}',
            f'{row["train_ms"] / 1e3:.2f}',
            f'{row["train_ratio"]:.2f}',
            f'{row["train_peak_gib"]:.2f}',
            f'{row["train_added_gib"]:.2f}',
        ]
    assert report['rows'][0]['train_ratio'] == 1
    assert (out / 'backbone_cost.md').read_text() == printed
    assert sorted(path.suffix for path in out.iterdir()) == ['.json', '.md', '.png']


def test_a_detector_has_objects_to_learn_and_to_find(tool, monkeypatch):
    require('mmdet')
    path = CONFIGS['mask-rcnn_convvit-tiny-p16_fpn_1xb2-10e_mini-coco-384px']
    monkeypatch.setattr(sys, 'argv', ['backbone_cost.py', f'detector={path}', '--size', '128'])
    args = tool.parse_args()
    config = tool.read_configs(args)['detector']
    for what in ('forward', 'train'):
        detector = tool.Subject(config, what, args)
        assert detector.take_turn() > 0
        figures = detector.describe()
        assert figures['model'] == 'MaskRCNN' and figures[f'{what}_peak_gib'] > 0
        assert figures['parameters'] == count_parameters(detector.model)
        assert figures['backbone_parameters'] == count_parameters(detector.model.backbone)
        if what == 'forward':
            assert figures['detections_per_image'] == 100  # of random weights: as many as the config allows
    for sample in detector.samples:
        objects = sample.gt_instances
        left, top, right, bottom = objects.bboxes.T
        assert len(objects) == 8 and objects.bboxes.min() >= 0 and objects.bboxes.max() <= 128
        torch.testing.assert_close(
            torch.tensor(objects.masks.areas).float(), (right - left) * (bottom - top), rtol=0.2, atol=0
        )


def test_wrong_configs(run, tmp_path):
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(')
    no_model = tmp_path / 'no_model.py'
    no_model.write_text('model_ = dict()')
    out = tmp_path / 'out'
    for config, message in (
        (tmp_path / 'missing.py', 'FileNotFoundError: '),
        (broken, 'SyntaxError: '),
        (no_model, 'ValueError: There is no `model` in it.'),
        ('nowhere::a/b.py', "ModuleNotFoundError: 'nowhere' is not installed."),
    ):
        error = run(f'a={config}', '--out', out)
        assert error.startswith(f'Error: The config of a cannot be read: {message}') and '\n' not in error
    assert not any(out.iterdir())
    assert run('no-name.py') == 2
    assert run('a=x.py', 'a=y.py') == 2


def test_size_that_a_backbone_refuses(run, classifier, tmp_path):
    out = tmp_path / 'out'
    error = run(f'a={classifier}', '--size', 72, '--rounds', 1, '--out', out)
    assert error.startswith('Error: a cannot be measured (forward): ValueError: The image is 72 x 72 pixels')
    assert '\n' not in error
    assert not any(out.iterdir())


def test_processes_that_have_ended(tool):
    killed = tool.Worker('a', None, 'forward', None)
    killed.process.kill()
    with pytest.raises(ValueError, match=r'^a cannot be measured \(forward\): its process was ended by SIGKILL, as '):
        killed.ask('take_turn')
    # One that has ended before it is asked has left word: there was no config to build a model from.
    ended = tool.Worker('b', None, 'train', None)
    ended.process.join()
    with pytest.raises(ValueError, match=r'^b cannot be measured \(train\): TypeError: '):
        ended.ask('take_turn')

import json
from functools import partial

import pytest
import torch
from helpers import ROOT, import_script, needs_torch, require, run_main

from mmconvmae.apis.export import OLDEST_TORCH
from mmconvmae.models import ConvViT
from mmconvmae.utils import count_parameters

for library in ('onnx', 'onnxruntime', 'onnxscript', 'timm'):
    require(library)

pytestmark = needs_torch(OLDEST_TORCH, 'export needs a newer PyTorch')
NAMES = ('test_vit', 'convvit-tiny')  # the first of timm's own for tests
OPTIONS = ('--size', 160, '--batch-size', 2, '--rounds', 2, '--threads', 1, '--device', 'cpu')


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return import_script('benchmarks/latency.py')


@pytest.mark.filterwarnings('ignore')  # the exporters'
def test_figures_of_every_path(tool, monkeypatch, capsys, tmp_path):
    # Without generating code, which takes a minute.
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='eager'))
    assert run_main(tool, monkeypatch, '--models', *NAMES, *OPTIONS, '--out', tmp_path / 'new') is None
    printed = capsys.readouterr()
    assert 'ETA' in printed.err and (tmp_path / 'new' / 'latency.md').read_text() == printed.out
    report = json.loads((tmp_path / 'new' / 'latency.json').read_text())
    assert [row['name'] for row in report['rows']] == list(NAMES) and 'ONNX Runtime' in report['conditions']
    first, ours = report['rows']
    assert ours['parameters'] == count_parameters(ConvViT('tiny', img_size=160)) + 192 * 1000 + 1000
    for path in tool.PATHS:
        own, others = ours[f'{path}_all_seconds'], first[f'{path}_all_seconds']
        assert len(own) == 2
        assert ours[f'{path}_rate'] == pytest.approx(sum(2 / x for x in own) / 2)  # the median of two
        assert ours[f'{path}_range'] == [2 / max(own), 2 / min(own)]
        assert ours[f'{path}_ratio'] == pytest.approx(sum(x / y for x, y in zip(others, own)) / 2)
        assert first[f'{path}_ratio'] == 1
        (cells,) = (line.split(' | ') for line in printed.out.splitlines() if line.startswith('| convvit-tiny |'))
        assert f'{ours[f"{path}_rate"]:.2f}' in cells
    # 8 bits are told from float32 by their errors.
    assert ours['onnx_difference'] < tool.TOLERANCE / 10 < ours['int8_difference'] < 0.5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--models', 'nothing'), 'Error: nothing cannot be built: '),
        (('--models', 'convvit-nothing'), 'Error: convvit-nothing cannot be built: '),
        (('--models', 'vit_tiny_patch16_224'), 'Error: vit_tiny_patch16_224 cannot be measured: '),
        (('--models', 'convvit-tiny', '--size', 72), 'Error: convvit-tiny cannot be built: '),
    ],
)
def test_faults_are_told_in_one_line(tool, monkeypatch, tmp_path, options, message):
    error = run_main(tool, monkeypatch, *OPTIONS, *options, '--paths', 'eager', '--out', tmp_path / 'new')
    assert error.startswith(message) and '\n' not in error
    assert not (tmp_path / 'new').exists()


def test_a_path_that_computes_something_else_is_not_timed(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, 'compile', lambda model: lambda images: model(images) + 1)
    error = run_main(tool, monkeypatch, *OPTIONS, '--models', 'convvit-tiny', '--paths', 'eager', 'compile')
    assert "its logits by compile differ from eager's by" in error and '\n' not in error

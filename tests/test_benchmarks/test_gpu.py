"""The script for a GPU, tried out on a CPU, and its attention against the models' own."""

import json

import pytest
import torch
from helpers import ROOT, import_script, run_script

from mmconvmae.registry import MODELS

pytest.importorskip('torch.nn.attention.flex_attention', reason='PyTorch before 2.5 has no flex_attention')


@pytest.fixture(scope='module')
def gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'benchmarks')
        yield import_script('benchmarks/gpu.py')


def plain_attention(q, k, v, score_mod):
    """What flex_attention computes, which has no backward pass on a CPU."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    batch, head, row, column = torch.meshgrid(*map(torch.arange, scores.shape), indexing='ij')
    return score_mod(scores, batch, head, row, column).softmax(-1) @ v


@pytest.mark.parametrize('rel_pos', ['shared', 'per_block', 'decomposed'])
def test_scores_have_the_same_outputs_and_gradients(gpu, rel_pos, monkeypatch):
    monkeypatch.setattr('torch.nn.attention.flex_attention.flex_attention', plain_attention)
    torch.manual_seed(0)
    settings = dict(arch='tiny', img_size=96, window_size=4, global_attn_indexes=(1,), rel_pos=rel_pos)
    backbone = MODELS.build(dict(type='mmconvmae.ConvViT', out_type='featmap', **settings))
    backbone.init_weights()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images, results = torch.randn(2, 3, 96, 96), []
    for context in (gpu.mask_in_place, gpu.flex_attention_in_place):
        with context('cpu'):
            out = backbone(images)[-1]
            parameters = list(backbone.parameters())
            results.append([out, *torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)])
    for ours, theirs in zip(*results):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * ours.abs().max().item())


def test_script(tmp_path):
    options = ('--device', 'cpu', '--arch', 'tiny', '--batch-sizes', '1', '--rounds', '1', '--size', '64')
    result = run_script('benchmarks/gpu.py', '--out', tmp_path, '--contenders', 'visible', *options)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / 'gpu.json').read_text())['figures']
    for row in figures['Kernel']:
        assert row['errors'] is None or max(row['errors']) < 1e-5
    assert len(figures['Pretraining']['1']) == 1 and len(figures['Attention of detectors']) == 4
    assert figures['Attention of detectors'][1]['difference'] < 1e-4
    assert '## Profile of a step' in (tmp_path / 'gpu.md').read_text()

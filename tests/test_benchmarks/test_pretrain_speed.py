import json

import pytest
import torch
from helpers import ROOT, needs_torch, run_script

from mmconvmae.checkpoint import to_official

ARGS = ('--arch', 'tiny', '--batch-size', '1', '--rounds', '1')


def test_published_form_is_the_same_model(small_config, build, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    from published_form import PublishedConvMAE

    ours = build(small_config)
    arch = small_config['backbone']['arch']
    decoder = {key: small_config['neck'][key] for key in ('embed_dims', 'depth', 'num_heads')}
    published = PublishedConvMAE(arch, img_size=64, decoder=decoder)
    published.load_state_dict(to_official(ours.state_dict()))
    images, losses = torch.randn(2, 3, 64, 64), []
    for model in (ours, published):
        torch.manual_seed(0)
        losses.append(model.loss(images, None)['loss'])
    torch.testing.assert_close(*losses)


def test_contenders_of_the_decoder_and_the_masks(tmp_path):
    """Multiply-adds, and images to decode for as large a step."""
    out = tmp_path / 'figures.json'
    names = ('visible', 'half', 'quarter', 'fast', 'complementary')
    result = run_script(
        'benchmarks/pretrain_speed.py',
        *('--arch', 'tiny', '--batch-size', '4', '--rounds', '1', '--no-memory', '--json', out),
        *('--contenders', *names, '--reference', 'visible'),
    )
    assert result.returncode == 0, result.stderr
    figures = dict(zip(names, json.loads(out.read_text())))
    counts = {name: figure['multiply_adds'] for name, figure in figures.items()}
    assert counts['fast'] < counts['quarter'] < counts['half'] < counts['visible'] == counts['complementary']
    for name, figure in figures.items():
        decoded = figure['images_per_second'] / (4 if name == 'complementary' else 1)
        assert figure['decoded_per_second'] == pytest.approx(decoded)


def test_batch_that_complementary_masks_do_not_go_into(tmp_path):
    result = run_script('benchmarks/pretrain_speed.py', *ARGS, '--contenders', 'complementary', '--no-memory')
    assert result.returncode == 1 and '--batch-size that is a multiple of the 4' in result.stderr


def test_cross_mae_predicts_from_the_visible_patches(monkeypatch):
    """Queries see mask token, place and visible tokens: each prediction is what it is when it is the only one."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    from cross_mae import CrossBlock

    torch.manual_seed(0)
    block = CrossBlock(16, 2)
    x, visible = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    alone = torch.cat([block(x[:, i : i + 1], visible) for i in range(5)], 1)
    torch.testing.assert_close(block(x, visible), alone)
    assert not torch.allclose(block(x, visible[:, :2]), alone)


@needs_torch('2.3', 'no autocast to float32 on a CPU, which the bench passes as a type, before')
def test_figures_of_each_contender(tmp_path):
    out = tmp_path / 'figures.json'
    result = run_script(
        'benchmarks/pretrain_speed.py',
        *('--contenders', 'visible', 'dense', '--reference', 'dense', '--json', out, '--chart', tmp_path / 'chart.png'),
        *ARGS,
    )
    assert result.returncode == 0, result.stderr
    visible, dense = json.loads(out.read_text())
    assert dense['ratio'] == 1 and visible['ratio'] == visible['seconds_per_step'] / dense['seconds_per_step']
    assert 0 < visible['multiply_adds'] < dense['multiply_adds']
    assert visible['peak_memory_gib'] > 0 and len(visible['all_seconds']) == 1
    assert (tmp_path / 'chart.png').stat().st_size > 0
    assert '| ConvMAE, visible blocks only |' in result.stdout

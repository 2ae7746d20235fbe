import json

import torch
from helpers import ROOT, run_script

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

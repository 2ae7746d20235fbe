"""Graphs of the backbone, with batches and sizes that they were not exported with, against the backbone itself."""

import keyword

import pytest
import torch
from mmengine.utils import digit_version

if digit_version(torch.__version__) < digit_version('2.5'):
    pytest.skip('PyTorch before 2.5 does not export all of it', allow_module_level=True)

from torch.export import Dim, export

MAPS = dict(out_type='featmap', out_indices=(0, 1, 2, 3))
WINDOWS = dict(window_size=3, global_attn_indexes=(1,))
FORMS = dict(
    maps=dict(out_type='featmap', out_indices=(0, 1, 2)),
    per_block=dict(
        rel_pos='per_block',
        layer_scale_init_value=1.0,
        fourth_level='conv',
        fourth_level_norm_cfg=dict(type='BN'),
        **MAPS,
    ),
    decomposed=dict(rel_pos='decomposed', out_type='featmap'),
    shared_in_windows=dict(rel_pos='shared', fourth_level='max_pool', **WINDOWS, **MAPS),
    decomposed_in_windows=dict(rel_pos='decomposed', out_type='featmap', **WINDOWS),
    vitdet=dict(rel_pos='decomposed', out_type='featmap', pad_windows=True, pretrain_img_size=32, **WINDOWS),
)
FREE_SIZE = ('classifier', 'maps', 'per_block', 'decomposed')


@pytest.fixture
def make(small_arch, build):
    def make(form):
        if form == 'classifier':
            backbone = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64)
            head = dict(type='LinearClsHead', num_classes=5, in_channels=32)
            return build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()
        return build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, **FORMS[form])).eval()

    return make


@pytest.mark.parametrize('form', ['classifier', *FORMS])
def test_exported_with_a_free_batch(make, form):
    model = make(form)
    graph = export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: Dim('batch')},)).module()
    with torch.no_grad():
        for batch in (1, 5):
            images = torch.randn(batch, 3, 64, 64)
            torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


# Strict export, by TorchDynamo, takes longer.
@pytest.mark.parametrize(('form', 'strict'), [*((form, False) for form in FREE_SIZE), ('per_block', True)])
def test_exported_with_a_free_size(make, form, strict):
    """Where nothing is in windows, whose number would have to be known."""
    model = make(form)
    sizes = {0: Dim('batch'), 2: 16 * Dim('rows', min=5), 3: 16 * Dim('columns', min=5)}
    graph = export(model, (torch.randn(2, 3, 96, 128),), dynamic_shapes=(sizes,), strict=strict).module()
    with torch.no_grad():
        for shape in ((5, 3, 80, 112), (1, 3, 128, 96)):
            images = torch.randn(shape)
            torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings('ignore')  # of what a trace takes for constant
@pytest.mark.parametrize('form', FORMS)
def test_traced(make, form):
    model = make(form)
    traced = torch.jit.trace(model, torch.randn(2, 3, 64, 64))
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(traced(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('form', FORMS)
def test_no_name_is_a_word_of_python(make, form):
    parts = {part for name, _ in make(form).named_modules() for part in name.split('.')}
    assert not any(map(keyword.iskeyword, parts))

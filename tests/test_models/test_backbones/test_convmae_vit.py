import pytest
import torch
from helpers import needs_torch
from reference import encode

from mmconvmae.models import ConvMAEMaskGenerator, ConvMAEViT
from mmconvmae.models.layers import ConvStage


def make(small_arch, build, **kwargs):
    return build(dict(type='mmconvmae.ConvMAEViT', arch=small_arch, **{'img_size': 64, **kwargs})).eval()


@pytest.mark.parametrize('conv_mode', ['visible', 'masked', 'unmasked'])
@pytest.mark.parametrize('kernel_size', [3, 5, 9])
@pytest.mark.parametrize('img_size', [(64, 64), (48, 80)])
def test_equals_reference(small_arch, build, conv_mode, kernel_size, img_size):
    model = make(small_arch, build, conv_mode=conv_mode, kernel_size=kernel_size, img_size=img_size)
    images = torch.randn(2, 3, *img_size)
    mask = ConvMAEMaskGenerator(0.6)(2, model.get_grid(images))
    sd = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    *maps, tokens = encode(sd, images, 2, mask.ids_keep, masked_conv=conv_mode != 'unmasked')
    outs = model(images, mask)
    torch.testing.assert_close(outs[2], tokens, rtol=1e-4, atol=1e-5)
    for out, x, size in zip(outs, maps, (4, 2)):
        assert out.shape == (2, mask.ids_keep.shape[1], size, size, x.shape[1])
        for b, ids in enumerate(mask.ids_keep.tolist()):
            for n, i in enumerate(ids):
                top, left = i // mask.grid[1] * size, i % mask.grid[1] * size
                tile = x[b, :, top : top + size, left : left + size].permute(1, 2, 0)
                torch.testing.assert_close(out[b, n], tile, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('cells_per_edge', [1, 2, 4])
def test_nothing_removed_reaches_what_is_visible(small_arch, build, cells_per_edge):
    model = make(small_arch, build, conv_mode='masked')
    images = torch.randn(2, 3, 64, 64)
    mask = ConvMAEMaskGenerator(0.5, cells_per_edge)(2, (4, 4))
    visible = mask.visible(64, 64).permute(0, 3, 1, 2)
    other = images * visible + torch.randn_like(images) * (1 - visible)
    seen, seen_other = model(images, mask), model(other, mask)
    torch.testing.assert_close(seen, seen_other)
    leaking = make(small_arch, build, conv_mode='unmasked')
    assert not torch.allclose(leaking(images, mask)[2], leaking(other, mask)[2])


def test_without_a_mask_it_is_a_convvit(small_arch, build):
    model = make(small_arch, build, out_indices=(0, 1, 2))
    plain = build(
        dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_indices=(0, 1, 2), out_type='featmap')
    ).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), plain(images))


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_gradient_checkpointing_changes_nothing(small_arch, build, conv_mode):
    images, grads = torch.randn(2, 3, 64, 64), []
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    for with_cp in (False, True):
        model = make(small_arch, build, conv_mode=conv_mode, with_cp=with_cp).train()
        sum(x.square().sum() for x in model(images, mask)).backward()
        grads.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked', 'unmasked'])
def test_chunks_of_images_change_nothing(small_arch, build, conv_mode, monkeypatch):
    images, results = torch.randn(5, 3, 64, 64), []
    mask = ConvMAEMaskGenerator()(5, (4, 4))
    model = make(small_arch, build, conv_mode=conv_mode).double()
    widest = 8 * 16 * 16 * model.stages[0].blocks[0].ffn[0].out_channels  # bytes of a whole image in stage 1
    for chunk in (100 * widest, 2 * widest, 1):  # all images at once, up to two, one at a time
        monkeypatch.setattr(ConvStage, 'CPU_CHUNK', chunk)
        outs = model(images.double(), mask)
        grads = torch.autograd.grad(
            sum(x.square().sum() for x in outs), [p for p in model.stages.parameters() if p.requires_grad]
        )
        results.append((outs, grads))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@needs_torch('2.4', 'PyTorch before 2.4 does not capture all of it')
@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_compiles_without_a_graph_break(small_arch, build, conv_mode):
    model = make(small_arch, build, conv_mode=conv_mode)
    images, mask = torch.randn(2, 3, 64, 64), ConvMAEMaskGenerator()(2, (4, 4))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(images, mask), model(images, mask))


def test_initialisation_of_pretraining():
    torch.manual_seed(0)
    model = ConvMAEViT('small')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    for name, value in model.state_dict().items():
        if (
            name.startswith(('stages.2.blocks', 'stages.2.token_embed', 'stages.2.patch_embed.projection.weight'))
            and value.ndim > 1
        ):
            bound = (6 / (value.shape[0] + value[0].numel())) ** 0.5  # xavier-uniform
            assert bound * 0.98 < value.abs().max() <= bound * (1 + 1e-6), name
        elif name.startswith(('stages.2.blocks', 'stages.2.token_embed')) and name.endswith('bias'):
            assert not value.any(), name
        else:
            assert torch.equal(value, before[name]), name


def test_mask_of_another_grid(small_arch, build):
    model = make(small_arch, build)
    with pytest.raises(ValueError, match='The mask is for 2 x 8 blocks, and the images have 4 x 4'):
        model(torch.randn(1, 3, 64, 64), ConvMAEMaskGenerator()(1, (2, 8)))


def test_cells_need_whole_maps(small_arch, build):
    model = make(small_arch, build)
    with pytest.raises(ValueError, match="`conv_mode='masked'`"):
        model(torch.randn(1, 3, 64, 64), ConvMAEMaskGenerator(cells_per_edge=4)(1, (4, 4)))


def test_unknown_conv_mode(small_arch):
    with pytest.raises(ValueError, match="`conv_mode` is 'sparse'; choose one of visible, masked, unmasked"):
        ConvMAEViT(small_arch, img_size=64, conv_mode='sparse')

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from reference import pretrain_loss

from mmconvmae.checkpoint import from_official, to_official
from mmconvmae.models import ConvMAEMaskGenerator
from mmconvmae.registry import MODELS


def loss_and_grads(model, images, noise):
    mask = model.mask_generator.from_noise(noise, model.backbone.get_grid(images))
    model.generate_mask = lambda inputs: mask
    model.zero_grad()
    loss = model.loss(images, None)['loss']
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
@pytest.mark.parametrize('ratio', [0.5, 0.75, 0.9])
@pytest.mark.parametrize('kernel_size', [5, 9])
def test_loss_and_gradients_equal_reference(small_config, build, conv_mode, ratio, kernel_size):
    size = (48, 64)
    small_config['backbone'].update(img_size=size, conv_mode=conv_mode, kernel_size=kernel_size)
    small_config['neck']['img_size'] = size
    small_config['mask_generator'] = dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=ratio)
    model = build(small_config).double()
    images, noise = torch.randn(2, 3, *size).double(), torch.rand(2, 12)
    loss, grads = loss_and_grads(model, images, noise)
    sd = {name: value.detach().requires_grad_() for name, value in model.state_dict().items()}
    expected = pretrain_loss(sd, images, noise, ratio, num_heads=2, decoder_heads=2)
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, sd[name].grad, msg=name)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_equals_the_authors(golden, conv_mode):
    outputs = golden('official_tiny_pretrain_outputs.npz')
    official = torch.load(golden('official_tiny_pretrain.pth'), weights_only=False)['model']
    widths = (32, 48, 96)
    arch = dict(embed_dims=widths, depths=(1, 2, 2), num_heads=4, mlp_ratios=(4, 4, 4))
    model = MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            backbone=dict(type='mmconvmae.ConvMAEViT', arch=arch, conv_mode=conv_mode),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', in_channels=widths, embed_dims=64, depth=2, num_heads=4),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )
    model.load_state_dict(from_official(official))

    def close(ours, theirs, tolerance):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()

    mask = model.mask_generator.from_noise(outputs['noise'], (14, 14))
    with torch.no_grad():
        feats = model.backbone(outputs['imgs'], mask)
        close(model.neck.fuse(feats), outputs['latent'], 1e-5)
        close(model.neck(feats, mask, all_patches=True), outputs['pred'], 1e-5)
        model.head.norm_pix = False
        close(model.head.loss(model.neck(feats, mask), outputs['imgs'], mask), outputs['loss_pix'], 1e-5)
    model.head.norm_pix = True
    loss, grads = loss_and_grads(model, outputs['imgs'], outputs['noise'])
    close(loss, outputs['loss_norm_pix'], 1e-5)
    grads = to_official(grads)
    norms = {name.removeprefix('gradnorm/'): value for name, value in outputs.items() if name.startswith('gradnorm/')}
    assert norms.keys() == grads.keys()
    for name, norm in norms.items():
        close(grads[name].norm(), norm, 1e-4)
    for name in outputs:
        if name.startswith('grad/'):
            close(grads[name.removeprefix('grad/')], outputs[name], 1e-4)


def test_masks_follow_the_authors_seed(small_config, build):
    model, images = build(small_config), torch.randn(2, 3, 64, 64)
    torch.manual_seed(7)
    loss = model.loss(images, None)['loss']
    torch.manual_seed(7)
    expected, _ = loss_and_grads(model, images, torch.rand(2, 16))
    torch.testing.assert_close(loss.detach(), expected)


def test_extract_feat_needs_no_mask(small_config, build):
    model = build(small_config).eval()
    (feat,) = model(torch.randn(2, 3, 64, 96), mode='tensor')
    assert feat.shape == (2, 32, 4, 6)


def test_reconstruction_is_an_image_of_the_right_range(small_config, build):
    model = build(small_config).eval()
    images = torch.randn(2, 3, 64, 64) * 50 + 20
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    reconstruction, removed = model.reconstruct(images, mask)
    assert reconstruction.shape == images.shape
    assert torch.equal(removed[:, 0, ::16, ::16], mask.removed)
    with torch.no_grad():
        pred = model.neck(model.backbone(images, mask), mask, all_patches=True)
    patch = images[1, :, 16:32, 48:64]
    expected = pred[1, 7].view(16, 16, 3).permute(2, 0, 1) * (patch.var() + 1e-6).sqrt() + patch.mean()
    torch.testing.assert_close(reconstruction[1, :, 16:32, 48:64], expected)


def test_switches_of_the_paper(small_config, build):
    """Single-scale decoder, unmasked convolution and masking per token each train."""
    for change in (
        dict(neck=dict(multi_scale=False)),
        dict(backbone=dict(conv_mode='unmasked')),
        dict(
            backbone=dict(conv_mode='masked'),
            mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', cells_per_edge=4),
        ),
        dict(backbone=dict(kernel_size=9)),
    ):
        config = copy.deepcopy(small_config)
        for key, value in change.items():
            config.setdefault(key, {}).update(value)
        model = build(config)
        loss = model.loss(torch.randn(2, 3, 64, 64), None)['loss']
        loss.backward()
        assert torch.isfinite(loss)
        unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        # with every block shown to stage 3 there is nowhere to put a mask token
        assert unused in ([], ['neck.mask_token']), unused


def test_bfloat16_autocast(small_config, build):
    model, images, noise = build(small_config), torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    expected, _ = loss_and_grads(model, images, noise)
    with torch.autocast('cpu', torch.bfloat16):
        loss, _ = loss_and_grads(model, images, noise)
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_moving_average(small_config, build):
    model = build(small_config)
    average = ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    average.update_parameters(model)
    loss = average.module.loss(torch.randn(2, 3, 64, 64), None)['loss']
    assert torch.isfinite(loss)


def test_parameters_of_base():
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmconvmae.ConvMAE',
                backbone=dict(type='mmconvmae.ConvMAEViT', arch='base'),
                neck=dict(type='mmconvmae.ConvMAEPretrainDecoder'),
                head=dict(type='mmconvmae.ConvMAEPretrainHead'),
            )
        )
        encoder = [model.backbone, model.neck.projections, model.neck.norm]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(115.04, abs=0.005)
    assert sum(p.numel() for part in encoder for p in part.parameters()) / 1e6 == pytest.approx(88.93, abs=0.005)

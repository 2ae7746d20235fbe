import copy
import re

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from reference import pretrain_loss

from mmconvmae.checkpoint import from_official, to_official
from mmconvmae.models import ComplementaryMaskGenerator, ConvMAEMask, ConvMAEMaskGenerator
from mmconvmae.models.layers import sincos_position_embedding
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds


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


def reference_loss_and_grads(model, images, noises, ratio, predict_ratio=1):
    """Of the mean over masks that are fed one after the other."""
    sd = {name: value.detach().requires_grad_() for name, value in model.state_dict().items()}
    losses = [pretrain_loss(sd, images, noise, ratio, 2, 2, predict_ratio=predict_ratio) for noise in noises]
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in sd.items()}


def turned(noise, num_views):
    """Noise of each view of an image: the same order, but with another run of the smallest first."""
    num_blocks = noise.shape[1]
    ranks = noise.argsort(1).argsort(1)
    return [((ranks - i * num_blocks // num_views) % num_blocks).double() for i in range(num_views)]


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
@pytest.mark.parametrize(('ratio', 'predict_ratio'), [(0.75, 0.5), (0.75, 0.25), (0.5, 0.7)])
def test_partial_prediction_equals_reference(small_config, build, conv_mode, ratio, predict_ratio):
    size = (48, 64)
    small_config['backbone'].update(img_size=size, conv_mode=conv_mode)
    small_config['neck'].update(depth=2, predict_ratio=predict_ratio)
    small_config['mask_generator'] = dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=ratio)
    model = build(small_config).double()
    images, noise = torch.randn(2, 3, *size).double(), torch.rand(2, 12)
    loss, grads = loss_and_grads(model, images, noise)
    expected, expected_grads = reference_loss_and_grads(model, images, [noise], ratio, predict_ratio)
    torch.testing.assert_close(loss, expected)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], msg=name)
    assert 'neck.mask_token' in grads
    full, _ = reference_loss_and_grads(model, images, [noise], ratio)
    assert abs(loss - full) > 1e-4


def test_a_share_of_the_patches_costs_the_decoder_less(small_config):
    small_config['neck'].update(depth=3)
    counts = []
    for predict_ratio in (1, 0.5):
        small_config['neck'].update(predict_ratio=predict_ratio)
        with torch.device('meta'):
            counts.append(count_multiply_adds(MODELS.build(small_config).loss, torch.empty(1, 3, 64, 64), None))
    # Of 16 tokens, 6 do not enter three blocks of 12 * 16² and an attention, nor the last norm and projection.
    block = 12 * 16**2
    queries = 2 * 16 * 16 * 16 - 2 * 10 * 10 * 16  # two products of attention in the two first blocks
    last = 2 * 16 * 12 * 16 - 2 * 10 * 6 * 16  # 12 or 6 tokens ask there, and 16 or 10 answer
    saved = 2 * (6 * block + queries) + 6 * block + last + 6 * 16 * 768
    assert counts[0] - counts[1] == saved


@pytest.mark.parametrize('predict_ratio', [1, 0.5])
def test_only_the_masks_draw_random_numbers(small_config, build, predict_ratio):
    small_config['neck'].update(predict_ratio=predict_ratio)
    model, images = build(small_config), torch.randn(2, 3, 64, 64)
    torch.manual_seed(5)
    model.loss(images, None)
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(2, 16)
    assert torch.equal(after, torch.rand(3))


def test_pictures_have_all_patches_whatever_share_is_trained(small_config, build):
    mask, pictures = ConvMAEMaskGenerator()(2, (4, 4)), []
    images = torch.randn(2, 3, 64, 64)
    for predict_ratio in (1, 0.25):
        small_config['neck'].update(predict_ratio=predict_ratio)
        pictures.append(build(small_config).eval().reconstruct(images, mask))
    torch.testing.assert_close(*pictures, rtol=0, atol=0)


def test_a_share_of_parts_of_blocks(small_config, build):
    small_config['backbone'].update(conv_mode='masked')
    small_config['neck'].update(predict_ratio=0.5)
    small_config['mask_generator'] = dict(type='mmconvmae.ConvMAEMaskGenerator', cells_per_edge=4)
    with pytest.raises(ValueError, match=r'A share of 0\.5 .* removes parts of blocks; set `predict_ratio=1`'):
        build(small_config).loss(torch.randn(2, 3, 64, 64), None)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
@pytest.mark.parametrize(('ratio', 'predict_ratio'), [(0.75, 1), (0.5, 1), (2 / 3, 1), (0.75, 1 / 3)])
def test_complementary_masks_equal_masks_one_after_the_other(small_config, build, conv_mode, ratio, predict_ratio):
    """The visible tiles and the dense form both equal the mean over masks that the reference is fed."""
    size = (48, 64)
    small_config['backbone'].update(img_size=size, conv_mode=conv_mode)
    small_config['neck'].update(predict_ratio=predict_ratio)
    small_config['mask_generator'] = dict(type='mmconvmae.ComplementaryMaskGenerator', mask_ratio=ratio)
    model = build(small_config).double()
    images, noise = torch.randn(2, 3, *size).double(), torch.rand(2, 12)
    loss, grads = loss_and_grads(model, images, noise)
    noises = turned(noise, round(1 / (1 - ratio)))
    expected, expected_grads = reference_loss_and_grads(model, images, noises, ratio, predict_ratio)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], msg=name)


def test_views_of_an_image_do_not_see_each_other(small_config, build):
    """What one mask shows changes nothing in the outputs for another mask of the same image."""
    model = build(small_config)
    mask = ComplementaryMaskGenerator()(1, (4, 4))
    images = torch.randn(1, 3, 64, 64)
    before = model.backbone(images, mask)
    other = images.clone()
    row, column = divmod(int(mask.ids_keep[2, 1]), 4)
    other[:, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] += 1
    for was, now in zip(before, model.backbone(other, mask)):
        assert not torch.equal(was[2], now[2])
        assert torch.equal(was[[0, 1, 3]], now[[0, 1, 3]])


def test_every_block_is_computed_once_for_all_views(small_config):
    """Stages 1 and 2 of four views cost what they cost of one image of which everything is visible."""
    with torch.device('meta'):
        model = MODELS.build(small_config)
        images = torch.empty(1, 64, 64, 3)
        views = ComplementaryMaskGenerator()(1, (4, 4), 'meta')
        everything = ConvMAEMask.from_order(torch.arange(16)[None], 16, (4, 4))
        counts = [count_multiply_adds(model.backbone.forward_visible_stages, images, x) for x in (views, everything)]
    assert counts[0] == counts[1] > 0


def test_pictures_with_complementary_masks_show_each_image_once(small_config, build):
    small_config['mask_generator'] = dict(type='mmconvmae.ComplementaryMaskGenerator')
    model, images = build(small_config).eval(), torch.randn(3, 3, 64, 64)
    reconstruction, removed = model.reconstruct(images)
    assert reconstruction.shape == images.shape and removed.shape == (3, 1, 64, 64)
    assert removed.float().mean() == 0.75


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_equals_the_authors(golden, conv_mode):
    outputs = golden('official_tiny_pretrain_outputs.npz')
    official = torch.load(golden('official_tiny_pretrain.pth'), weights_only=True)['model']
    arch = dict(embed_dims=(32, 48, 96), depths=(1, 2, 2), num_heads=4, mlp_ratios=(4, 4, 4))
    model = MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            backbone=dict(type='mmconvmae.ConvMAEViT', arch=arch, conv_mode=conv_mode),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=64, depth=2, num_heads=4),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )
    model.load_state_dict(from_official(official))

    def close(ours, theirs, tolerance):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()

    mask = model.mask_generator.from_noise(outputs['noise'], (14, 14))
    with torch.no_grad():
        feats = model.backbone(outputs['imgs'], mask)
        close(model.neck.fusion(feats), outputs['latent'], 1e-5)
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
        encoder = [model.backbone, model.neck.fusion]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(115.04, abs=0.005)
    assert sum(p.numel() for part in encoder for p in part.parameters()) / 1e6 == pytest.approx(88.93, abs=0.005)


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
@pytest.mark.parametrize('img_size', [224, (96, 160)])
@pytest.mark.parametrize('in_channels', [1, 3, 4])
@pytest.mark.parametrize('patch_sizes', [(4, 2, 2), (2, 2, 2)])
def test_neck_and_head_follow_the_backbone(arch, img_size, in_channels, patch_sizes):
    """Each setting is given once, to the backbone of the base config."""
    settings = dict(arch=arch, img_size=img_size, in_channels=in_channels, patch_sizes=patch_sizes)
    config = Config.fromfile(ROOT / 'configs/_base_/models/convmae_convvit-base-p16.py')
    config.model.backbone.update(settings)
    with torch.device('meta'):
        model = MODELS.build(config.model)
        height, width = img_size if isinstance(img_size, tuple) else (img_size, img_size)
        model.loss(torch.randn(2, in_channels, height, width), None)['loss'].backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    edge = 16 if patch_sizes == (4, 2, 2) else 8
    assert model.neck.decoder_pred.out_features == edge * edge * in_channels
    neck = MODELS.build(dict(config.model, backbone=dict(config.model.backbone, arch='tiny'))).neck
    embedding = sincos_position_embedding((height // edge, width // edge), 512)
    assert torch.equal(neck.decoder_pos_embed.weight, embedding)
    assert neck.decoder_pos_embed((height // edge, width // edge)) is neck.decoder_pos_embed.weight


def test_images_of_another_size_have_their_own_embedding(small_config, build):
    """As if the size of the backbone were theirs: nothing is resized in pretraining."""
    model, noise = build(small_config), torch.rand(2, 15)
    small_config['backbone']['img_size'] = (48, 80)
    other = build(small_config)
    state_dict = {name: value for name, value in model.state_dict().items() if 'pos_embed' not in name}
    other.load_state_dict(state_dict, strict=False)
    images = torch.randn(2, 3, 48, 80)
    torch.testing.assert_close(*(loss_and_grads(m, images, noise) for m in (model, other)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('part', 'setting', 'message'),
    [
        ('neck', dict(encoder_dims=(16, 24, 48)), r'`encoder_dims` of the neck is \(16, 24, 48\), .* \(16, 24, 32\)'),
        ('neck', dict(patch_sizes=(2, 2, 2)), r'`patch_sizes` of the neck is \(2, 2, 2\), .* says \(4, 2, 2\)'),
        ('neck', dict(img_size=224), r'`img_size` of the neck is 224, .* says \(64, 64\)'),
        ('neck', dict(in_channels=(16, 24, 32)), r'`in_channels` of the neck is \(16, 24, 32\), .* says 3'),
        ('head', dict(patch_size=8), '`patch_size` of the head is 8, .* says 16'),
        ('head', dict(in_channels=1), '`in_channels` of the head is 1, .* says 3'),
    ],
)
def test_neck_or_head_that_contradicts_the_backbone(small_config, part, setting, message):
    small_config[part].update(setting)
    with pytest.raises(ValueError, match=f'{message}; leave it out, since the {part} follows the backbone'):
        MODELS.build(small_config)


def test_what_agrees_with_the_backbone_may_be_said_again(small_config):
    small_config['neck'].update(encoder_dims=[16, 24, 32], patch_sizes=[4, 2, 2], img_size=64, in_channels=3)
    small_config['head'].update(patch_size=16, in_channels=3)
    MODELS.build(small_config)


def test_images_with_other_channels(small_config, build):
    with pytest.raises(ValueError, match='The images have 4 channels, and the backbone takes 3; set `in_channels`'):
        build(small_config).loss(torch.randn(1, 4, 64, 64), None)


def test_checkpoint_of_the_version_before(small_config, build):
    """Names of version 0.1, as a whole model has them."""
    model, other = build(small_config, seed=1), build(small_config, seed=2)
    former = {}
    for name, value in model.state_dict().items():
        name = name.replace('neck.fusion.', 'neck.')
        name = re.sub(r'stages\.(\d)\.patch_embed\.', r'patch_embeds.\1.', name)
        name = re.sub(r'stages\.2\.(token_embed|pos_embed)\.', r'\1.', name)
        former[re.sub(r'stages\.(\d)\.blocks\.', r'stages.\1.', name)] = value
    assert 'backbone.patch_embeds.2.norm.bias' in former and 'backbone.stages.2.1.attn.qkv.weight' in former
    other.load_state_dict(former)
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name

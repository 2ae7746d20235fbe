import copy

import pytest
import torch
from video_reference import pretrain_loss

from mmconvmae.models import ConvMAEMaskGenerator
from mmconvmae.registry import MODELS
from mmconvmae.utils.counting import count_multiply_adds


@pytest.fixture
def video_config(small_config):
    small_config['backbone'].update(type='mmconvmae.VideoConvMAEViT', num_frames=6)
    small_config['head']['norm_pix'] = 'channel'
    return small_config


def loss_and_grads(model, inputs, mask):
    model.generate_mask = lambda inputs: mask
    model.zero_grad()
    loss = model.loss(inputs, None)['loss']
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('temporal_kernel_size', [1, 3, 5])
@pytest.mark.parametrize('ratio', [0.5, 0.9])
@pytest.mark.parametrize('size', [(32, 48), (64, 48)])
def test_visible_tubes_alone_equal_a_dense_reference(video_config, build, temporal_kernel_size, ratio, size):
    video_config['backbone'].update(img_size=size, temporal_kernel_size=temporal_kernel_size)
    model = build(video_config).double()
    clips = torch.randn(2, 3, 6, *size).double()
    mask = ConvMAEMaskGenerator(ratio, round_up=True)(2, tuple(edge // 16 for edge in size))
    loss, grads = loss_and_grads(model, clips, mask)
    sd = {name: value.detach().requires_grad_() for name, value in model.state_dict().items()}
    expected = pretrain_loss(sd, clips, mask.ids_keep, num_heads=2, decoder_heads=2, norm_pix='channel')
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    assert len(grads) == len([parameter for parameter in model.parameters() if parameter.requires_grad])
    for name, grad in grads.items():
        torch.testing.assert_close(grad, sd[name].grad, msg=name)


@pytest.mark.parametrize(
    'change',
    [
        dict(backbone=dict(conv_mode='masked')),
        dict(backbone=dict(tubelet_size=3)),
        dict(backbone=dict(in_channels=1)),
        dict(neck=dict(multi_scale=False)),
        dict(neck=dict(depth=3)),
        dict(head=dict(norm_pix=True)),
        dict(head=dict(norm_pix=False)),
    ],
    ids=str,
)
def test_switches_equal_the_reference(video_config, build, change):
    for part, settings in change.items():
        video_config[part].update(settings)
    model = build(video_config).double()
    clips = torch.randn(2, model.backbone.in_channels, 6, 64, 64).double()
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    loss, _ = loss_and_grads(model, clips, mask)
    norm_pix = video_config['head']['norm_pix']
    expected = pretrain_loss(model.state_dict(), clips, mask.ids_keep, 2, 2, norm_pix)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked', 'unmasked'])
def test_one_frame_is_an_image(small_config, build, conv_mode):
    """Loss and gradients, at the usual size and at another, where the fixed position embeddings are made anew."""
    small_config['backbone']['conv_mode'] = conv_mode
    model = build(small_config)
    video = copy.deepcopy(small_config)
    video['backbone'].update(type='mmconvmae.VideoConvMAEViT', num_frames=1, tubelet_size=1, temporal_kernel_size=1)
    video = build(video)

    def as_video(tensors):
        return {
            name: value.unsqueeze(2 if name.endswith('depthwise_conv.weight') else 1)
            if name.endswith(('depthwise_conv.weight', 'pos_embed.weight'))
            else value
            for name, value in tensors.items()
        }

    video.load_state_dict(as_video(model.state_dict()))
    for size in ((64, 64), (48, 80)):
        images = torch.randn(2, 3, *size)
        mask = ConvMAEMaskGenerator(0.6)(2, tuple(edge // 16 for edge in size))
        loss, grads = loss_and_grads(model, images, mask)
        video_loss, video_grads = loss_and_grads(video, images.unsqueeze(2), mask)
        torch.testing.assert_close(video_loss, loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(video_grads, as_video(grads), rtol=1e-5, atol=1e-6)


def test_part_of_the_tubes_is_predicted(video_config, build):
    """Decoder masking: what is left out of the prediction enters neither decoder nor loss."""
    video_config['neck']['predict_ratio'] = 0.5
    model = build(video_config).double()
    clips = torch.randn(2, 3, 6, 64, 64).double()
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    loss, _ = loss_and_grads(model, clips, mask)
    some = mask.predict_share(0.5)
    with torch.no_grad():
        pred = model.neck(model.backbone(clips, mask), some)
    assert pred.shape == (2, 6, 3, 16 * 16 * 2 * 3)
    torch.testing.assert_close(model.head.loss(pred, clips, some), loss)
    other = clips.clone()
    for clip, ids in zip(other, mask.ids_predict[:, 6:]):
        for i in ids.tolist():
            clip[:, :, i // 4 * 16 : i // 4 * 16 + 16, i % 4 * 16 : i % 4 * 16 + 16] = 7
    torch.testing.assert_close(model.head.loss(pred, other, some), loss)


def test_reconstruction_is_a_clip_of_the_right_range(video_config, build):
    model = build(video_config).eval()
    clips = torch.randn(2, 3, 6, 64, 32) * 50 + 20
    mask = ConvMAEMaskGenerator()(2, (4, 2))
    reconstruction, removed = model.reconstruct(clips, mask)
    assert reconstruction.shape == clips.shape and removed.shape == (2, 1, 1, 64, 32)
    assert torch.equal(removed[:, 0, 0, ::16, ::16], mask.removed)
    with torch.no_grad():
        pred = model.neck(model.backbone(clips, mask), mask, all_patches=True)
    cube = clips[1, 2, 4:6, 16:32, 16:32]  # blue, third slot, second row and column
    expected = pred[1, 3, 2].view(16, 16, 2, 3)[..., 2].permute(2, 0, 1) * (cube.std() + 1e-6) + cube.mean()
    torch.testing.assert_close(reconstruction[1, 2, 4:6, 16:32, 16:32], expected)


def test_neck_and_head_follow_the_backbone(video_config):
    for part, setting in (('neck', dict(num_frames=8)), ('neck', dict(tubelet_size=1)), ('head', dict(tubelet_size=1))):
        config = copy.deepcopy(video_config)
        config[part].update(setting)
        (name,) = setting
        with pytest.raises(ValueError, match=f'`{name}` of the {part} is .*; leave it out'):
            MODELS.build(config)


@pytest.mark.parametrize(
    ('neck', 'conv_mode', 'giga', 'giga_whole', 'mega'),
    [
        (dict(embed_dims=384, depth=4, num_heads=6), 'visible', 38.75, 39.27, 96.91),
        (dict(embed_dims=384, depth=4, num_heads=6), 'masked', 89.64, 90.16, 96.91),
        (dict(), 'visible', 79.74, 80.54, 115.32),
    ],
)
def test_cost_of_pretraining(neck, conv_mode, giga, giga_whole, mega):
    """Base, 16 frames of 224 x 224 pixels: a forward pass, and one whose last decoder block gives all tokens."""
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmconvmae.ConvMAE',
                backbone=dict(type='mmconvmae.VideoConvMAEViT', arch='base', conv_mode=conv_mode),
                neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', **neck),
                head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix='channel'),
                mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.9, round_up=True),
            )
        )
        clips = torch.empty(1, 3, 16, 224, 224)
        mask = model.generate_mask(clips)
        assert mask.ids_keep.shape == (1, 20)
        cost = count_multiply_adds(model.loss, clips, None)
        whole = count_multiply_adds(lambda: model.neck(model.backbone(clips, mask), mask, all_patches=True))
    assert cost / 1e9 == pytest.approx(giga, abs=0.01)
    assert whole / 1e9 == pytest.approx(giga_whole, abs=0.01)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert parameters / 1e6 == pytest.approx(mega, abs=0.005)

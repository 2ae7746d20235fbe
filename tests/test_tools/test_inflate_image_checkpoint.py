import copy

import pytest
import torch
from helpers import import_script

from mmconvmae.models import ConvMAEMaskGenerator
from mmconvmae.registry import MODELS

inflate = import_script('tools/model_converters/inflate_image_checkpoint.py').inflate
TIME = dict(num_frames=6, tubelet_size=2, temporal_kernel_size=3)


@pytest.fixture
def classifier(small_arch, build):
    backbone = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, layer_scale_init_value=0.5)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=32)
    return build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()


def video_backbone(small_arch, state_dict, **kwargs):
    backbone = MODELS.build(dict(type='mmconvmae.VideoConvViT', arch=small_arch, img_size=64, **TIME, **kwargs)).eval()
    names = {
        name.removeprefix('backbone.'): value for name, value in state_dict.items() if name.startswith('backbone.')
    }
    backbone.load_state_dict(names)
    return backbone


def test_still_clip_gives_the_classes_of_the_image(run_tool, classifier, small_arch, tmp_path):
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'image.pth')
    options = ('--num-frames', 6, '--tubelet-size', 2, '--temporal-kernel-size', 3)
    result = run_tool(
        'model_converters/inflate_image_checkpoint.py', tmp_path / 'image.pth', tmp_path / 'video.pth', *options
    )
    assert result.returncode == 0, result.stderr
    state_dict = torch.load(tmp_path / 'video.pth')['state_dict']
    images = torch.randn(2, 3, 64, 96)  # not the usual size either
    backbone = video_backbone(small_arch, state_dict, layer_scale_init_value=0.5)
    with torch.no_grad():
        feats = backbone(images.unsqueeze(2).expand(-1, -1, 10, -1, -1))  # nor the usual number of frames
        scores = torch.nn.functional.linear(feats[0], state_dict['head.fc.weight'], state_dict['head.fc.bias'])
        torch.testing.assert_close(scores, classifier(images), rtol=1e-4, atol=1e-5)


def test_time_slots_are_images(small_config, build, small_arch):
    """Stages 1 and 2 of a moving clip, and all of one that stands still."""
    image = build(
        dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_indices=(0, 1, 2), out_type='featmap')
    )
    names = {f'backbone.{name}': value for name, value in image.state_dict().items()}
    video = video_backbone(small_arch, inflate(names, **TIME), out_indices=(0, 1, 2), out_type='featmap')
    clips = torch.randn(2, 3, 6, 64, 64)
    with torch.no_grad():
        outs = video(clips)
        for slot in range(3):
            expected = image.eval()(clips[:, :, 2 * slot : 2 * slot + 2].mean(2))
            for out, maps in zip(outs[:2], expected):
                torch.testing.assert_close(out[:, :, slot], maps, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(outs[2][:, :, 2], expected[2], rtol=1e-2, atol=1e-2)
        still = clips[:, :, :1].expand(-1, -1, 6, -1, -1)
        for out, maps in zip(video(still), image(still[:, :, 0])):
            torch.testing.assert_close(out, maps.unsqueeze(2).expand_as(out), rtol=1e-4, atol=1e-4)


def test_pretraining_predicts_the_image_for_every_frame(small_config, build):
    model = build(small_config).double().eval()
    video = copy.deepcopy(small_config)
    video['backbone'].update(type='mmconvmae.VideoConvMAEViT', **TIME)
    video = MODELS.build(video).double().eval()
    video.load_state_dict(inflate(model.state_dict(), **TIME))
    images = torch.randn(2, 3, 64, 64).double()
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    with torch.no_grad():
        expected = model.neck(model.backbone(images, mask), mask)
        clips = images.unsqueeze(2).expand(-1, -1, 6, -1, -1)
        pred = video.neck(video.backbone(clips, mask), mask)
    frames = pred.unflatten(-1, (256, 2, 3))  # (B, M, slots, pixels, frames, channels)
    expected = expected.unflatten(-1, (256, 1, 3)).unsqueeze(2)
    torch.testing.assert_close(frames, expected.expand_as(frames))


def test_fixed_positions_can_stay_those_of_time(small_config, build):
    state_dict = build(small_config).state_dict()
    names = inflate(state_dict, positions=False).keys()
    assert state_dict.keys() - names == {'backbone.stages.2.pos_embed.weight', 'neck.decoder_pos_embed.weight'}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_frames=5), '5 frames cannot be put together by 2'),
        (dict(temporal_kernel_size=4), 'the temporal kernel is 4 long; choose an odd length'),
    ],
)
def test_numbers_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        inflate({}, **settings)


@pytest.mark.parametrize('kwargs', [dict(rel_pos='shared'), dict(fourth_level='conv')])
def test_what_clips_do_not_have(small_arch, build, kwargs):
    model = build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, **kwargs))
    names = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match='a model for clips has no relative positions and no fourth level'):
        inflate(names)


def test_what_is_not_of_images_leaves_nothing(run_tool, classifier, tmp_path):
    for state_dict, message in (
        (
            dict(weight=torch.zeros(3)),
            "it has no 'backbone.stages.0.patch_embed.projection.weight'; is it a checkpoint",
        ),
        (inflate(classifier.state_dict()), 'it is one for clips already'),
    ):
        torch.save(dict(state_dict=state_dict), tmp_path / 'image.pth')
        result = run_tool(
            'model_converters/inflate_image_checkpoint.py', tmp_path / 'image.pth', tmp_path / 'video.pth'
        )
        assert result.returncode == 1 and 'Traceback' not in result.stderr
        assert message in result.stderr
        assert not list(tmp_path.glob('*video.pth*'))

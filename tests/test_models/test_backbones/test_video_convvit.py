import pytest
import torch
from helpers import needs_torch
from video_reference import encode

from mmconvmae.models import ConvMAEMaskGenerator, ConvViT, VideoConvMAEViT, VideoConvViT
from mmconvmae.models.layers import ConvStage, sincos_position_embedding
from mmconvmae.registry import MODELS
from mmconvmae.utils.counting import count_multiply_adds, count_parameters


@pytest.fixture
def make(small_arch, build):
    def make(kind='VideoConvViT', **kwargs):
        settings = dict(arch=small_arch, img_size=64, num_frames=6, **kwargs)
        return build(dict(type=f'mmconvmae.{kind}', **settings)).eval()

    return make


def prefixed(model):
    return {f'backbone.{name}': value for name, value in model.state_dict().items()}


@pytest.mark.parametrize('temporal_kernel_size', [1, 3, 5])
@pytest.mark.parametrize(('tubelet_size', 'patch_sizes'), [(2, (4, 2, 2)), (1, (2, 2, 2)), (3, (4, 4, 2))])
def test_equals_reference(make, temporal_kernel_size, tubelet_size, patch_sizes):
    model = make(
        temporal_kernel_size=temporal_kernel_size,
        tubelet_size=tubelet_size,
        patch_sizes=patch_sizes,
        out_indices=(0, 1, 2),
        out_type='featmap',
    )
    clips = torch.randn(2, 3, 6, 64, 64)
    *maps, tokens = encode(prefixed(model), clips, num_heads=2)
    stage3 = tokens.permute(0, 3, 1, 2).unflatten(3, model.get_grid(clips)[1:])
    torch.testing.assert_close(model(clips), (*maps, stage3), rtol=1e-4, atol=1e-5)


def test_out_types(make):
    clips = torch.randn(2, 3, 4, 64, 32)  # neither the usual size nor the usual number of frames
    model = make(out_indices=(0, 1, 2), out_type='featmap')
    maps = model(clips)
    assert [tuple(x.shape) for x in maps] == [(2, 16, 2, 16, 8), (2, 24, 2, 8, 4), (2, 32, 2, 4, 2)]
    raw = make(out_indices=(0, 1, 2), out_type='raw')
    raw.load_state_dict(model.state_dict())
    for tokens, x in zip(raw(clips), maps):
        torch.testing.assert_close(tokens, x.flatten(2).transpose(1, 2))
    pooled = make(out_indices=(0, 1, 2), out_type='avg_featmap')
    pooled.load_state_dict(model.state_dict(), strict=False)
    for i, (vector, x) in enumerate(zip(pooled(clips), maps)):
        norm = getattr(pooled, f'norm{i}')
        expected = torch.nn.functional.layer_norm(x.mean((2, 3, 4)), x.shape[1:2], norm.weight, norm.bias, 1e-6)
        torch.testing.assert_close(vector, expected)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_masked_encoder_equals_reference(make, conv_mode):
    model = make('VideoConvMAEViT', conv_mode=conv_mode)
    clips = torch.randn(2, 3, 6, 64, 64)
    mask = ConvMAEMaskGenerator(0.6)(2, (4, 4))
    *maps, tokens = encode(prefixed(model), clips, 2, mask.ids_keep)
    outs = model(clips, mask)
    torch.testing.assert_close(outs[2], tokens.transpose(1, 2), rtol=1e-4, atol=1e-5)
    for out, x, size in zip(outs, maps, (4, 2)):
        assert out.shape == (2, mask.ids_keep.shape[1], 3, size, size, x.shape[1])
        for b, ids in enumerate(mask.ids_keep.tolist()):
            for n, i in enumerate(ids):
                top, left = i // 4 * size, i % 4 * size
                tube = x[b, :, :, top : top + size, left : left + size].permute(1, 2, 3, 0)
                torch.testing.assert_close(out[b, n], tube, rtol=1e-4, atol=1e-5)


def test_nothing_removed_reaches_what_is_visible(make):
    """With tubes drawn block-wise or in cells; without masked convolutions it does."""
    clips = torch.randn(2, 3, 6, 64, 64)
    for cells_per_edge, conv_mode, leaks in ((1, 'visible', False), (4, 'masked', False), (1, 'unmasked', True)):
        model = make('VideoConvMAEViT', conv_mode=conv_mode)
        mask = ConvMAEMaskGenerator(0.5, cells_per_edge)(2, (4, 4))
        visible = mask.visible(64, 64).permute(0, 3, 1, 2).unsqueeze(2)
        other = clips * visible + torch.randn_like(clips) * (1 - visible)
        seen, seen_other = model(clips, mask)[2], model(other, mask)[2]
        assert torch.allclose(seen, seen_other, rtol=1e-4, atol=1e-5) != leaks, conv_mode


def test_without_a_mask_the_masked_encoder_is_the_backbone(make):
    model = make('VideoConvMAEViT', out_indices=(0, 1, 2))
    plain = make(out_indices=(0, 1, 2), out_type='featmap')
    plain.load_state_dict(model.state_dict())
    clips = torch.randn(2, 3, 6, 64, 64)
    torch.testing.assert_close(model(clips), plain(clips))


def test_a_clip_backwards_with_kernels_turned_in_time(make):
    """Order in time is known by kernels and position embeddings alone."""
    model, turned = make(), make()
    state_dict = model.state_dict()
    for name, value in state_dict.items():
        if name.endswith('depthwise_conv.weight'):
            state_dict[name] = value.flip(2)
        elif name == 'stages.2.pos_embed.weight':
            state_dict[name] = value.flip(1)
        elif name == 'stages.0.patch_embed.projection.weight':
            state_dict[name] = value.unflatten(1, (2, 3)).flip(1).flatten(1, 2)  # frames within a patch
    turned.load_state_dict(state_dict)
    clips = torch.randn(2, 3, 6, 64, 64)
    torch.testing.assert_close(turned(clips.flip(2)), model(clips), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(clips.flip(2))[0], model(clips)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('conv_mode', ['visible', 'masked'])
def test_checkpointing_and_chunks_change_nothing(make, conv_mode, monkeypatch):
    clips, mask = torch.randn(3, 3, 6, 64, 64).double(), ConvMAEMaskGenerator()(3, (4, 4))
    results = []
    for with_cp, chunk in ((False, 2**30), (True, 2**30), (False, 1)):
        monkeypatch.setattr(ConvStage, 'CPU_CHUNK', chunk)
        model = make('VideoConvMAEViT', conv_mode=conv_mode, with_cp=with_cp).double().train()
        outs = model(clips, mask)
        sum(x.square().sum() for x in outs).backward()
        grads = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
        results.append((outs, grads))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@needs_torch('2.4', 'PyTorch before 2.4 does not capture all of it')
def test_compiles_without_a_graph_break(make):
    model, clips, mask = make('VideoConvMAEViT'), torch.randn(2, 3, 6, 64, 64), ConvMAEMaskGenerator()(2, (4, 4))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(clips, mask), model(clips, mask))


@needs_torch('2.5', 'PyTorch before 2.5 does not export all of it')
def test_exported_with_a_free_batch(make):
    from torch.export import Dim, export

    model = make()
    graph = export(model, (torch.randn(2, 3, 6, 64, 64),), dynamic_shapes=({0: Dim('batch')},)).module()
    with torch.no_grad():
        for batch in (1, 5):
            clips = torch.randn(batch, 3, 6, 64, 64)
            torch.testing.assert_close(graph(clips), model(clips), rtol=1e-5, atol=1e-5)


def test_checkpoint_of_another_size_and_length_is_resized(make, small_arch):
    """In pretraining the embedding is made anew instead."""
    large = MODELS.build(dict(type='mmconvmae.VideoConvViT', arch=small_arch, img_size=96, num_frames=16))
    large.init_weights()
    model = make()
    model.load_state_dict(large.state_dict())
    torch.testing.assert_close(model.stages[2].pos_embed.weight, large.stages[2].pos_embed((3, 4, 4)))
    masked = make('VideoConvMAEViT')
    masked.load_state_dict(large.state_dict(), strict=False)
    assert torch.equal(masked.stages[2].pos_embed.weight, sincos_position_embedding((3, 4, 4), 32))


def test_checkpoints_of_images_and_clips_are_told_apart(make, small_arch):
    image = MODELS.build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64))
    with pytest.raises(ValueError, match=r'for images, and VideoConvViT takes clips; .*inflate_image_checkpoint'):
        make().load_state_dict(image.state_dict())
    with pytest.raises(ValueError, match='for clips, and ConvViT takes images'):
        image.load_state_dict(make().state_dict())


def test_clips_that_do_not_fit(make):
    model = make()
    with pytest.raises(ValueError, match='The clip has 5 frames, which `tubelet_size`, 2, does not divide'):
        model(torch.randn(1, 3, 5, 64, 64))
    with pytest.raises(ValueError, match='60 x 64 pixels, which the total stride of 16'):
        model(torch.randn(1, 3, 6, 60, 64))
    with pytest.raises(ValueError, match='have 4 channels, and the backbone takes 3'):
        model(torch.randn(1, 4, 6, 64, 64))
    with pytest.raises(ValueError, match='The mask is for 2 x 8 blocks, and the images have 4 x 4'):
        make('VideoConvMAEViT')(torch.randn(1, 3, 6, 64, 64), ConvMAEMaskGenerator()(1, (2, 8)))


@pytest.mark.parametrize(
    'setting', [dict(window_size=2), dict(rel_pos='shared'), dict(fourth_level='max_pool')], ids=str
)
def test_what_clips_do_not_have(small_arch, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f'`{name}` is .*, and VideoConvViT has neither windows .* leave `{name}` out'):
        VideoConvViT(small_arch, img_size=64, **setting)


def test_images_and_clips_are_not_mixed_up(make, small_arch):
    with pytest.raises(ValueError, match=r'clips of shape \(B, 3, T, H, W\), .* have the shape \(2, 3, 64, 64\)'):
        make()(torch.randn(2, 3, 64, 64))
    image = ConvViT(small_arch, img_size=64)
    with pytest.raises(ValueError, match=r'images of shape \(B, 3, H, W\), .* have the shape \(2, 3, 6, 64, 64\)'):
        image(torch.randn(2, 3, 6, 64, 64))


@pytest.mark.parametrize(
    ('arch', 'temporal_kernel_size', 'mega', 'giga'),
    [('base', 5, 86.11, 223.07), ('base', 3, 86.04, 222.18), ('base', 1, 85.98, 221.30), ('small', 5, 22.71, 70.91)],
)
def test_cost_of_a_classifier(arch, temporal_kernel_size, mega, giga):
    """With the 400 classes of Kinetics-400, on 16 frames of 224 x 224 pixels; the paper has 86 M."""
    with torch.device('meta'):
        model = VideoConvViT(arch, temporal_kernel_size=temporal_kernel_size)
        head = torch.nn.Linear(model.embed_dims[2], 400)
        cost = count_multiply_adds(model, torch.empty(1, 3, 16, 224, 224))
    assert count_parameters(model, head) / 1e6 == pytest.approx(mega, abs=0.005)
    assert cost / 1e9 == pytest.approx(giga, abs=0.01)


def test_initialisation_of_pretraining(small_arch):
    """As for images: xavier-uniform, and the position embedding stays."""
    model = VideoConvMAEViT(small_arch, img_size=64, num_frames=4)
    model.init_weights()
    weight = model.stages[2].patch_embed.projection.weight
    bound = (6 / (weight.shape[0] + weight[0].numel())) ** 0.5
    assert bound * 0.95 < weight.abs().max() <= bound * (1 + 1e-6)
    assert torch.equal(model.stages[2].pos_embed.weight, sincos_position_embedding((2, 4, 4), 32))

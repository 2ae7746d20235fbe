"""VideoMAE's ViT against a plain one, dense and with loops, that shares no code with the package."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import save_backbone
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from reference import _attend, _norm, _transformer_block
from video_reference import pretrain_loss

from mmconvmae.models import ConvMAEMask, ConvMAEMaskGenerator, VideoMAEViT
from mmconvmae.registry import MODELS
from mmconvmae.utils.counting import count_multiply_adds

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=64)
BACKBONE = dict(type='mmconvmae.VideoMAEViT', arch=ARCH, img_size=64, num_frames=6)


def pretraining(backbone=BACKBONE, **neck):
    settings = dict(dict(embed_dims=32, depth=2, num_heads=2), **neck)
    return dict(
        type='mmconvmae.ConvMAE',
        backbone=backbone,
        neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', multi_scale=False, **settings),
        head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix='channel'),
        mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.9, round_up=True),
    )


def classifier(backbone, classes=5):
    head = dict(type='LinearClsHead', num_classes=classes, in_channels=768 if 'arch' not in backbone else 48)
    return dict(type='mmconvmae.VideoClassifier', backbone=dict(backbone, out_type='avg_featmap'), head=head)


def positions(slots, rows, columns, width):
    """A quarter of the channels for the time, three eighths for the column and three for the row."""
    table = torch.empty(slots, rows, columns, width, dtype=torch.float64)
    for t in range(slots):
        for i in range(rows):
            for j in range(columns):
                values = []
                for place, share in ((t, width // 4), (j, width // 8 * 3), (i, width // 8 * 3)):
                    angles = [place / 10000 ** (n / (share // 2)) for n in range(share // 2)]
                    values += [*map(math.sin, angles), *map(math.cos, angles)]
                table[t, i, j] = torch.tensor(values)
    return table


def encode(sd, clips, num_heads=3, kept=None):
    """All tokens of whole clips, slot by slot, (B, T, L, D); nobody attends to removed ones. Of `kept` tubes if given.

    The clips have all tokens in every block, as if nothing had been left out.
    """
    weight = sd['backbone.patch_embed.weight'].unflatten(1, (2, 3)).transpose(1, 2)  # (D, 3, 2, 16, 16)
    x = F.conv3d(clips, weight, sd['backbone.patch_embed.bias'], stride=(2, 16, 16)).movedim(1, -1)
    x = x + positions(*x.shape[1:]).to(x)
    slots, tubes = x.shape[1], x.shape[2] * x.shape[3]
    x = x.flatten(1, 3)
    bias = torch.zeros(len(x), 1, slots * tubes, dtype=x.dtype)
    if kept is not None:
        for b, ids in enumerate(kept.tolist()):
            removed = [t * tubes + n for t in range(slots) for n in range(tubes) if n not in ids]
            bias[b, :, removed] = -math.inf
    for name in ('backbone.layers.0', 'backbone.layers.1'):
        x = _transformer_block(sd, name, x, num_heads, lambda head, q, k, v: _attend(q, k, v, bias))
    x = x.unflatten(1, (slots, tubes))
    return x if kept is None else torch.stack([tokens[:, ids] for tokens, ids in zip(x, kept)])


@pytest.mark.parametrize('ratio', [0.5, 0.9])
@pytest.mark.parametrize('size', [(6, 64, 64), (4, 32, 96)])
def test_pretraining_equals_a_dense_reference(build, ratio, size):
    """Latent, loss and every gradient, at the usual size and at another."""
    model = build(pretraining()).double()
    clips = torch.randn(2, 3, *size).double()
    mask = ConvMAEMaskGenerator(ratio, round_up=True)(2, (size[1] // 16, size[2] // 16))
    model.generate_mask = lambda clips: mask
    sd = {name: value.detach().requires_grad_() for name, value in model.state_dict().items()}
    if size != (6, 64, 64):
        own = positions(size[0] // 2, *mask.grid, 32).flatten(1, 2)[None]
        sd['neck.decoder_pos_embed.weight'] = own
    (latent,) = model.backbone(clips, mask)
    # the fixed embedding is kept in float32
    close = dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(latent.transpose(1, 2), encode(sd, clips, 3, mask.ids_keep), **close)
    loss = model.loss(clips, None)['loss']
    loss.backward()
    expected = pretrain_loss(sd, clips, mask.ids_keep, 3, 2, 'channel', encode=lambda *args: (encode(*args),))
    torch.testing.assert_close(loss, expected, **close)
    expected.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, sd[name].grad, msg=name, **close)


def test_nothing_removed_reaches_the_latent(build):
    """To the bit, and even where it is not a number."""
    model = build(BACKBONE)
    clips = torch.randn(2, 3, 6, 64, 64)
    mask = ConvMAEMaskGenerator(0.6)(2, (4, 4))
    visible = mask.visible(64, 64).permute(0, 3, 1, 2).unsqueeze(2).bool().expand_as(clips)
    (latent,) = model(clips, mask)
    for filling in (torch.randn_like(clips), torch.full_like(clips, math.nan)):
        assert torch.equal(model(clips.where(visible, filling), mask)[0], latent)
    assert not torch.equal(model(clips.where(~visible, torch.zeros(())), mask)[0], latent)


def test_several_masks_of_a_clip(build):
    model, clips = build(BACKBONE), torch.randn(2, 3, 6, 64, 64)
    mask = ConvMAEMaskGenerator(0.6)(4, (4, 4))
    twice = model(clips.repeat_interleave(2, 0), mask)
    torch.testing.assert_close(model(clips, mask), twice)


def test_features_of_whole_clips(build):
    model, pooled = build(BACKBONE), build(dict(BACKBONE, out_type='avg_featmap'))
    assert not pooled.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    sd = {f'backbone.{name}': value for name, value in pooled.state_dict().items()}
    for size in ((6, 64, 64), (8, 32, 48)):
        clips = torch.randn(2, 3, *size)
        tokens = encode(sd, clips)  # (B, T, L, D)
        expected = tokens.permute(0, 3, 1, 2).unflatten(3, (size[1] // 16, size[2] // 16))
        torch.testing.assert_close(model(clips), (expected,), rtol=1e-4, atol=1e-5)
        mean = _norm(sd, 'backbone.norm', tokens.mean((1, 2)), 1e-6)
        torch.testing.assert_close(pooled(clips), (mean,), rtol=1e-4, atol=1e-5)


def test_finetuning_starts_from_pretraining(build, tmp_path):
    """With another length and size, for which positions are made anew."""
    pretrained = build(pretraining())
    path = save_backbone(pretrained.backbone.state_dict(), tmp_path / 'pretrained.pth')
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = MODELS.build(classifier(dict(BACKBONE, num_frames=4, img_size=32, init_cfg=init_cfg)))
    model.init_weights()
    model.eval()
    own = model.backbone.state_dict()
    for name, value in pretrained.backbone.state_dict().items():
        if name != 'pos_embed.weight':
            assert torch.equal(own[name], value), name
    torch.testing.assert_close(own['pos_embed.weight'][0].double(), positions(2, 2, 2, 48).flatten(1, 2))
    clips, samples = torch.randn(2, 3, 4, 32, 32), [DataSample().set_gt_label(i) for i in range(2)]
    logits = F.linear(model.backbone(clips)[0], model.head.fc.weight, model.head.fc.bias)
    expected = F.cross_entropy(logits, torch.arange(2))
    torch.testing.assert_close(model(clips, samples, mode='loss')['loss'], expected)
    torch.testing.assert_close(model(clips, mode='predict')[0].pred_score, logits[0].softmax(0))


@pytest.mark.parametrize(
    'constructor', ['LearningRateDecayOptimWrapperConstructor', 'mmconvmae.LayerDecayOptimWrapperConstructor']
)
def test_layer_decay(constructor):
    config = dict(
        constructor=constructor,
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    groups = build_optim_wrapper(MODELS.build(classifier(BACKBONE)), config).optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    steps = {'patch_embed': 3, 'layers.0': 2, 'layers.1': 1, 'norm': 0}
    for part, number in steps.items():
        names = [name for name in rates if name.startswith(f'backbone.{part}.')]
        assert names and {rates[name] for name in names} == {0.5**number}, part
    assert rates['head.fc.weight'] == 1


def test_stochastic_depth_rises():
    model = VideoMAEViT(dict(ARCH, num_layers=3), 32, 2, drop_path_rate=0.2)
    drops = [drop for layer in model.layers for drop in (layer.attn.out_drop, layer.ffn.dropout_layer)]
    assert [drop.drop_prob for drop in drops] == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])


def test_initialisation():
    torch.manual_seed(0)
    model = VideoMAEViT(ARCH, 64, 6)
    model.init_weights()
    for name, shape in (('attn.qkv', (144, 48)), ('attn.proj', (48, 48)), ('ffn.layers.0.0', (64, 48))):
        layer = model.layers[1].get_submodule(name)
        bound = (6 / sum(shape)) ** 0.5
        assert layer.weight.shape == shape and bound * 0.95 < layer.weight.abs().max() <= bound * (1 + 1e-6)
        assert layer.bias.abs().max() < 1e-4
    assert torch.equal(model.pos_embed.weight, VideoMAEViT(ARCH, 64, 6).pos_embed.weight)


def trained(*modules):
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


def test_size_and_cost():
    """Base, 16 frames of 224 x 224 pixels, against the released model's: without bias of keys, and with all tubes
    embedded and all tokens through the decoder's last block, it has 86.53 M, and 180.3 G and 35.4 G multiply-adds."""
    backbone = dict(type='mmconvmae.VideoMAEViT')
    with torch.device('meta'):
        model = MODELS.build(classifier(backbone, 400))
        pretrained = MODELS.build(pretraining(backbone, embed_dims=384, depth=4, num_heads=6))
        clips = torch.empty(1, 3, 16, 224, 224)
        finetuning = count_multiply_adds(model, clips)
        mask = pretrained.generate_mask(clips)
        assert mask.ids_keep.shape == (1, 20)
        own = count_multiply_adds(pretrained.loss, clips, None)
        whole = count_multiply_adds(lambda: pretrained.neck(pretrained.backbone(clips, mask), mask, all_patches=True))
    key_bias = 12 * 768
    assert (trained(model) - key_bias) / 1e6 == pytest.approx(86.53, abs=0.005)
    block = 4 * 768**2 + 2 * 768 * 3072 + 3 * 768 + 768 + 3072 + 768 + 4 * 768
    assert trained(pretrained.backbone) == 2 * 16 * 16 * 3 * 768 + 768 + 12 * block
    assert finetuning / 1e9 == pytest.approx(180.3, abs=0.05)
    embedding, prediction = 2 * 16 * 16 * 3 * 768, 384 * 1536
    released = whole + 1408 * embedding - 160 * prediction
    assert released / 1e9 == pytest.approx(35.4, abs=0.05)
    # Here the last block has queries, projection and MLP of the 1408 tokens alone that are predicted.
    assert whole - own == 160 * (prediction + 2 * 384**2 + 8 * 384**2 + 2 * 1568 * 384)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(arch='nothing'), '`arch` is .*; choose one of'),
        (dict(out_type='raw'), '`out_type` is .*; choose one of'),
        (dict(drop_path_rate=2), '`drop_path_rate` is 2; give'),
        (dict(num_frames=0), '`num_frames` is 0; give'),
        (dict(num_frames=5), 'The clip has 5 frames .*; take a multiple of 2 frames'),
        (dict(img_size=(64, 40)), 'of 64 x 40 pixels; .*multiples of 16 pixels'),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(BACKBONE, **change))


def test_wrong_inputs(build):
    model, cells = build(BACKBONE), ConvMAEMaskGenerator(0.5, cells_per_edge=2)(1, (4, 4))
    clips, other = torch.randn(1, 3, 6, 64, 64), ConvMAEMask.from_removed(torch.eye(2).bool()[None])
    for x, mask, message in (
        (clips[0], None, r'takes clips of shape \(B, 3, T, H, W\)'),
        (clips[:, :1], None, r'takes clips of shape \(B, 3, T, H, W\)'),
        (clips[:, :, :5], None, 'The clip has 5 frames'),
        (clips[:, :, :0], None, 'The clip has 0 frames'),
        (clips, other, 'The mask is one of 2 x 2 places, and the clips have 4 x 4 tubes'),
        (clips, cells, 'The mask is one of 8 x 8 places, and the clips have 4 x 4 tubes'),
    ):
        with pytest.raises(ValueError, match=message):
            model(x, mask)

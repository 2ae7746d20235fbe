import math

import pytest
import torch
import torch.nn.functional as F
from helpers import save_backbone
from reference import _linear, _norm, _transformer_block

from mmconvmae.models import MIMDet
from mmconvmae.registry import MODELS

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48)
CONFIG = dict(type='mmconvmae.MIMDet', arch=ARCH, img_size=64, decoder_dims=24, decoder_depth=2, decoder_num_heads=3)
SIZES = [(64, 64), (70, 101), (33, 96)]


def embedding(grid, width):
    """Sines and cosines of 4 x 4 places, column first, resized for a grid; shape (rows, columns, width)."""
    table = torch.zeros(1, width, 4, 4)
    for row in range(4):
        for column in range(4):
            values = []
            for place in (column, row):
                angles = [place / 10000 ** (4 * i / width) for i in range(width // 4)]
                values += [*map(math.sin, angles), *map(math.cos, angles)]
            table[0, :, row, column] = torch.tensor(values)
    return F.interpolate(table, grid, mode='bicubic', align_corners=False)[0].permute(1, 2, 0)


def reference(sd, images, kept=None):
    """The four levels of each image, one image at a time; `kept` are the places that its encoder is given, or all."""
    maps = []
    for number, image in enumerate(images):
        x, levels = image, []
        for stage in range(4):
            x = F.conv2d(x[None], sd[f'stem.{stage}.0.weight'], stride=2, padding=1)[0]
            x = (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt()
            x = x * sd[f'stem.{stage}.1.weight'][:, None, None] + sd[f'stem.{stage}.1.bias'][:, None, None]
            x = F.gelu(x)
            levels.append(x)
        stem = F.linear(x.permute(1, 2, 0), sd['stem.3.3.weight'][..., 0, 0], sd['stem.3.3.bias'])
        rows, columns, width = stem.shape
        places = range(rows * columns) if kept is None else kept[number].tolist()
        encoded = stem + embedding((rows, columns), width)
        encoded = torch.stack([encoded[place // columns, place % columns] for place in places])[None]
        for layer in range(2):
            encoded = _transformer_block(sd, f'layers.{layer}', encoded, 2, eps=1e-5)
        encoded = _linear(sd, 'decoder_embed', _norm(sd, 'ln1', encoded, 1e-5))[0]
        decoded = _linear(sd, 'stem_embed', stem)
        for place, token in zip(places, encoded):
            decoded[place // columns, place % columns] = token
        decoded = (decoded + embedding((rows, columns), 24)).reshape(1, -1, 24)
        for block in range(2):
            decoded = _transformer_block(sd, f'decoder_blocks.{block}', decoded, 3, eps=1e-5)
        decoded = _norm(sd, 'decoder_norm', decoded, 1e-5).reshape(rows, columns, 24).permute(2, 0, 1)
        odd = F.pad(decoded, (0, columns % 2, 0, rows % 2), value=-math.inf)
        largest = odd.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).amax((2, 4))
        maps.append((levels[1], levels[2], decoded, largest))
    return [torch.stack(level) for level in zip(*maps)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('ratio', [0.25, 0.5, 1.0])
def test_features_in_training(build, size, ratio):
    model = build(dict(CONFIG, sample_ratio=ratio)).train()
    images = torch.randn(2, 3, *size)
    torch.manual_seed(1)
    kept = model.sample(images)
    torch.manual_seed(1)
    with torch.no_grad():
        levels = model(images)
        expected = reference(model.state_dict(), images, kept)
    grid = [math.ceil(edge / 16) for edge in size]
    assert kept.shape == (2, int(math.prod(grid) * ratio))
    for level, plain in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, plain, rtol=1e-4, atol=1e-5)
    if ratio == 1:
        with torch.no_grad():
            for level, same in zip(levels, model.eval()(images), strict=True):
                torch.testing.assert_close(level, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', SIZES)
def test_features_in_evaluation_have_all_tokens(build, size):
    model = build(dict(CONFIG, sample_ratio=0.25, drop_path_rate=0.5)).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        levels = model(images)
        expected = reference(model.state_dict(), images)
    for level, plain, stride, width in zip(levels, expected, (4, 8, 16, 32), (8, 16, 24, 24), strict=True):
        assert level.shape == (2, width, *(math.ceil(edge / stride) for edge in size))
        torch.testing.assert_close(level, plain, rtol=1e-4, atol=1e-5)


def test_tokens_of_padding_are_drawn_last(build):
    """The first image has 4 x 5 patches of its own, the second 2 x 2, of 5 x 6; half of all are 15."""
    model = build(CONFIG)
    images = torch.zeros(2, 3, 80, 96)
    images[0, :, :64, :70] = torch.randn(3, 64, 70)
    images[1, 0, 31, 31] = 1.0
    images[1, :, :16, :17] = 1.0
    images[1, 2, 30, 5] = -1.0
    own = [{6 * row + column for row in range(4) for column in range(5)}, {0, 1, 6, 7}]
    drawn = [set(), set()]
    for _ in range(50):
        for number, ids in enumerate(model.sample(images).tolist()):
            assert len(set(ids)) == 15
            assert set(ids) <= own[number] if number == 0 else own[number] <= set(ids)
            drawn[number] |= set(ids)
    assert drawn == [own[0], set(range(30))]


def test_every_token_is_drawn_as_often(build):
    model = build(dict(CONFIG, sample_ratio=0.25))
    torch.manual_seed(0)
    ids = model.sample(torch.ones(4000, 3, 64, 64))
    shares = ids.flatten().bincount(minlength=16) / 4000
    torch.testing.assert_close(shares, torch.full((16,), 0.25), rtol=0, atol=0.03)


def test_everything_but_the_position_embeddings_learns(build):
    model = build(CONFIG).train()
    sum(level.square().sum() for level in model(torch.randn(2, 3, 64, 64))).backward()
    fixed = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert fixed == {'pos_embed.weight', 'decoder_pos_embed.weight'}


def test_bfloat16(build):
    model = build(CONFIG).train()
    with torch.autocast('cpu', torch.bfloat16):
        levels = model(torch.randn(2, 3, 64, 64))
    assert all(torch.isfinite(level).all() for level in levels)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(sample_ratio=0), '`sample_ratio` is 0'),
        (dict(sample_ratio=1.5), '`sample_ratio` is 1.5'),
        (dict(arch='none'), "`arch` is 'none'; choose one of"),
        (dict(decoder_depth=0), '`decoder_depth` is 0'),
        (dict(decoder_num_heads=5), 'not divisible by its 5 heads'),
    ],
)
def test_wrong_values(changes, message):
    with pytest.raises(ValueError, match=message):
        MIMDet(**changes)


@pytest.fixture
def mae(build):
    """A small MAE of mmpretrain for images of 48 pixels, with a block more in the decoder."""
    return build(
        dict(
            type='mmpretrain.MAE',
            backbone=dict(type='MAEViT', arch=ARCH, img_size=48),
            neck=dict(
                type='MAEPretrainDecoder',
                num_patches=9,
                embed_dim=32,
                decoder_embed_dim=24,
                decoder_depth=3,
                decoder_num_heads=3,
            ),
            head=dict(type='MAEPretrainHead', loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        )
    )


@pytest.fixture
def checkpoint(mae, tmp_path):
    """Writes a checkpoint of MAE, without the parameters that start in some way; gives its path."""

    def write(without=('none',)):
        path = tmp_path / 'mae.pth'
        torch.save(dict(state_dict={k: v for k, v in mae.state_dict().items() if not k.startswith(without)}), path)
        return str(path)

    return write


def test_mae_fills_encoder_and_decoder(mae, checkpoint):
    model = MODELS.build(CONFIG)
    left = model.load_state_dict(torch.load(checkpoint())['state_dict'], strict=False)
    assert left.missing_keys and all(name.startswith(('stem.', 'stem_embed.')) for name in left.missing_keys)
    assert {name.split('.')[0] for name in model.state_dict()} - {name.split('.')[0] for name in left.missing_keys} == {
        'pos_embed', 'layers', 'ln1', 'decoder_embed', 'decoder_pos_embed', 'decoder_blocks', 'decoder_norm'
    }  # fmt: skip
    unused = ('backbone.cls_token', 'backbone.patch_embed.', 'neck.mask_token', 'neck.decoder_pred.')
    unused += ('neck.decoder_blocks.2.',)
    assert all(name.startswith(unused) for name in left.unexpected_keys)

    started = MODELS.build(dict(CONFIG, init_cfg=dict(type='Pretrained', checkpoint=checkpoint())))
    started.init_weights()
    for name, value in model.state_dict().items():
        if not name.startswith('stem'):
            assert torch.equal(started.state_dict()[name], value), name
    # What each part makes of the same tokens
    tokens = torch.randn(2, 5, 32)
    for blocks, same in (
        (
            [*mae.backbone.layers, mae.backbone.ln1, mae.neck.decoder_embed],
            [*model.layers, model.ln1, model.decoder_embed],
        ),
        ([*mae.neck.decoder_blocks[:2], mae.neck.ln1], [*model.decoder_blocks, model.decoder_norm]),
    ):
        x = y = tokens
        for block, twin in zip(blocks, same, strict=True):
            x, y = block(x), twin(y)
        # norms have an eps of 1e-6 in pretraining and of 1e-5 here
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
        tokens = x.detach()
    for own, pretrained in (
        (model.pos_embed, mae.backbone.pos_embed),
        (model.decoder_pos_embed, mae.neck.decoder_pos_embed),
    ):
        maps = pretrained[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, (4, 4), mode='bicubic', align_corners=False)
        torch.testing.assert_close(own.weight, maps.flatten(2).transpose(1, 2))


def test_own_checkpoint_is_loaded_as_it_is(build, tmp_path):
    model = build(CONFIG)
    path = save_backbone(model.state_dict(), tmp_path / 'own.pth')
    other = MODELS.build(dict(CONFIG, init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')))
    other.init_weights()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ('without', 'changes', 'message'),
    [
        (('neck.',), {}, "'neck.decoder_embed.weight' is missing"),
        (('none',), dict(decoder_depth=4), "'neck.decoder_blocks.3.ln1.weight' is missing"),
        (('none',), dict(arch=dict(ARCH, embed_dims=16)), 'of another architecture: backbone.pos_embed is'),
        (('none',), dict(arch=dict(ARCH, feedforward_channels=64)), 'of another architecture: backbone.layers.0.ffn'),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(checkpoint, without, changes, message):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint(without))
    model = MODELS.build(dict(CONFIG, **changes, init_cfg=init_cfg))
    with pytest.raises(ValueError, match=message):
        model.init_weights()

import pytest
import torch
from reference import encode, window_attention

from mmconvmae.checkpoint import from_official
from mmconvmae.models import ConvViT
from mmconvmae.registry import MODELS


@pytest.fixture
def model(small_arch, build):
    return build(
        dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_indices=(0, 1, 2), out_type='featmap')
    ).eval()


def prefixed(model):
    return {f'backbone.{name}': value for name, value in model.state_dict().items()}


@pytest.mark.parametrize('kernel_size', [3, 5, 7])
@pytest.mark.parametrize('patch_sizes', [(4, 2, 2), (2, 2, 1), (4, 4, 2)])
def test_equals_reference(small_arch, build, kernel_size, patch_sizes):
    model = build(
        dict(
            type='mmconvmae.ConvViT',
            arch=small_arch,
            img_size=(32, 64),
            patch_sizes=patch_sizes,
            kernel_size=kernel_size,
            out_indices=(0, 1, 2),
            out_type='featmap',
        )
    ).eval()
    images = torch.randn(2, 3, 32, 64)
    stage1, stage2, tokens = encode(prefixed(model), images, num_heads=2)
    outs = model(images)
    stage3 = tokens.transpose(1, 2).unflatten(2, model.get_grid(images))
    torch.testing.assert_close(outs, (stage1, stage2, stage3), rtol=1e-4, atol=1e-5)


def test_out_types(small_arch, build, model):
    images = torch.randn(2, 3, 64, 32)
    maps = model(images)
    assert [tuple(x.shape) for x in maps] == [(2, 16, 16, 8), (2, 24, 8, 4), (2, 32, 4, 2)]
    config = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_indices=(0, 1, 2))
    raw = build(dict(config, out_type='raw')).eval()
    raw.load_state_dict(model.state_dict())
    for tokens, x in zip(raw(images), maps):
        torch.testing.assert_close(tokens, x.flatten(2).transpose(1, 2))
    pooled = build(dict(config, out_type='avg_featmap')).eval()
    pooled.load_state_dict(model.state_dict(), strict=False)
    for i, (vector, x) in enumerate(zip(pooled(images), maps)):
        norm = getattr(pooled, f'norm{i}')
        expected = torch.nn.functional.layer_norm(x.mean((2, 3)), x.shape[1:2], norm.weight, norm.bias, 1e-6)
        torch.testing.assert_close(vector, expected)


def test_equals_the_authors_classifier(golden, build):
    outputs = golden('official_tiny_finetune_outputs.npz')
    official = torch.load(golden('official_tiny_finetune.pth'), weights_only=True)['model']
    arch = dict(embed_dims=(32, 48, 96), depths=(1, 2, 2), num_heads=4, mlp_ratios=(4, 4, 4))
    config = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmconvmae.ConvViT', arch=arch),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=96),
    )
    classifier = MODELS.build(config).eval()
    classifier.load_state_dict(from_official(official))
    feats = classifier.extract_feat(outputs['imgs'])
    torch.testing.assert_close(feats[0], outputs['pooled'], rtol=1e-5, atol=1e-5 * outputs['pooled'].abs().max())
    logits = classifier.head(feats)
    torch.testing.assert_close(logits, outputs['logits'], rtol=1e-5, atol=1e-5 * outputs['logits'].abs().max())
    maps = MODELS.build(dict(config['backbone'], out_indices=(0, 1), out_type='featmap')).eval()
    maps.load_state_dict(classifier.backbone.state_dict(), strict=False)
    stage1, stage2 = maps(outputs['imgs'])
    for ours, theirs in ((stage1[:, :, ::4, ::4], outputs['stage1']), (stage2[:, :, ::2, ::2], outputs['stage2'])):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max())


def test_parameters_are_those_of_the_released_detection_and_segmentation_backbones():
    windows = dict(window_size=16, global_attn_indexes=(0, 3, 6, 10), rel_pos='shared', fourth_level='max_pool')
    own = dict(rel_pos='per_block', layer_scale_init_value=1.0, fourth_level='conv')
    for size, kwargs, millions in ((1024, windows, 87.80), (512, own, 91.09)):
        with torch.device('meta'):
            model = ConvViT(img_size=size, out_type='featmap', **kwargs)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_gradient_checkpointing_changes_nothing(small_arch, build):
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    config = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, window_size=3, global_attn_indexes=(0,))
    grads = []
    for with_cp in (False, True):
        model = build(dict(config, rel_pos='shared', with_cp=with_cp)).train()
        model(images)[0].square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('frozen_stages', [0, 1, 2, 3])
def test_frozen_stages(small_arch, build, frozen_stages):
    model = build(
        dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, frozen_stages=frozen_stages, drop_path_rate=0.5)
    )
    model.train()
    for i in range(3):
        frozen = i < frozen_stages
        assert all(parameter.requires_grad != frozen for parameter in model.stages[i].parameters())
        assert all(part.training != frozen for part in model.stages[i].modules())
    assert all(parameter.requires_grad == (frozen_stages < 3) for parameter in model.norm2.parameters())


def rel_pos_bias(model, block, window):
    """What a block adds to its scores, from its parameters' definition."""
    stage = model.stages[2]
    attention = stage.blocks[block].attn
    if hasattr(attention.rel_pos, 'rows'):
        rows, columns = attention.rel_pos.rows.weight, attention.rel_pos.columns.weight
        return lambda head: lambda q, dy, dx: q @ rows[dy + window[0] - 1] + q @ columns[dx + window[1] - 1]
    shared = stage.window_rel_pos if attention.window_size else stage.global_rel_pos
    table = shared if attention.rel_pos is None else attention.rel_pos
    row = lambda dy, dx: (dy + window[0] - 1) * (2 * window[1] - 1) + dx + window[1] - 1  # noqa: E731
    return lambda head: lambda q, dy, dx: table.weight[row(dy, dx), head]


# Grids of 4 x 6 and 5 x 3 tokens: windows of 2 divide the first and not the second.
@pytest.mark.parametrize('img_size', [(64, 96), (80, 48)])
@pytest.mark.parametrize('rel_pos', ['shared', 'per_block', 'decomposed'])
def test_windows_and_relative_positions_equal_reference(small_arch, build, img_size, rel_pos):
    model = build(
        dict(
            type='mmconvmae.ConvViT',
            arch={**small_arch, 'depths': (1, 2, 3)},
            img_size=img_size,
            window_size=2,
            global_attn_indexes=(1,),
            rel_pos=rel_pos,
            layer_scale_init_value=1.0,
            out_type='raw',
        )
    ).eval()

    def attention_of_block(n, grid):
        window = grid if n == 1 else (2, 2)
        bias = rel_pos_bias(model, n, window)
        return lambda head, q, k, v: window_attention(q, k, v, grid, window, bias(head))

    images = torch.randn(2, 3, *img_size)
    *_, tokens = encode(prefixed(model), images, num_heads=2, attention_of_block=attention_of_block)
    torch.testing.assert_close(model(images)[0], tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('rel_pos', ['shared', 'per_block', 'decomposed'])
def test_tables_made_for_the_size_give_what_resized_ones_give(small_arch, build, rel_pos):
    config = dict(
        type='mmconvmae.ConvViT',
        arch=small_arch,
        window_size=2,
        global_attn_indexes=(0,),
        rel_pos=rel_pos,
        out_type='raw',
    )
    model = build(dict(config, img_size=64)).eval()
    other = build(dict(config, img_size=96)).eval()
    other.load_state_dict(model.state_dict())  # resizes once, here
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(model(images), other(images))
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(model(images), other(images))


def test_fourth_level(small_arch, build):
    config = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_type='featmap', out_indices=(2, -1))
    images = torch.randn(2, 3, 80, 112)
    stage3, pooled = build(dict(config, fourth_level='max_pool')).eval()(images)
    assert pooled.shape == (2, 32, 3, 4)  # half of 5 x 7, rounded up: the level covers the whole image
    for y, x in ((0, 0), (1, 2), (2, 3)):
        expected = stage3[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].amax((2, 3))
        assert torch.equal(pooled[:, :, y, x], expected)
    model = build(dict(config, fourth_level='conv', fourth_level_norm_cfg=dict(type='BN'))).eval()
    stage3, level = model(images)
    conv, norm = model.fourth_level[:2]
    for y, x in ((0, 0), (1, 2)):
        patch = stage3[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
        value = (patch[:, None] * conv.weight).sum((2, 3, 4)) + conv.bias
        value = (value - norm.running_mean) / (norm.running_var + 1e-5) ** 0.5 * norm.weight + norm.bias
        torch.testing.assert_close(level[:, :, y, x], torch.nn.functional.gelu(value), rtol=1e-4, atol=1e-5)


def test_drop_path_rises_over_all_blocks():
    model = ConvViT('base', drop_path_rate=0.14)
    rates = [block.drop_path.drop_prob for stage in model.stages[:2] for block in stage.blocks]
    rates += [block.attn.out_drop.drop_prob for block in model.stages[2].blocks]
    assert rates == pytest.approx([0.01 * i for i in range(15)])


def test_other_image_size(small_arch, build):
    images = torch.randn(1, 3, 64, 96)
    model = build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, out_type='raw')).eval()
    other = build(dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=(64, 96), out_type='raw')).eval()
    other.load_state_dict(model.state_dict())  # resizes the position embedding once, here
    torch.testing.assert_close(model(images), other(images))


def test_image_that_the_stride_does_not_divide(model):
    with pytest.raises(
        ValueError, match=r'The image is 64 x 100 pixels, which the total stride of 16 .* multiples of 16'
    ):
        model(torch.randn(1, 3, 64, 100))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(arch='giant'), "`arch` is 'giant'; choose one of tiny, small, base, large, huge"),
        (dict(arch=dict(embed_dims=(16, 24, 32))), 'name one of tiny, small, base, large, huge, or give a dict with'),
        (dict(num_heads=5), 'width of stage 3, 32, is not divisible by its 5 heads'),
        (dict(depths=(1, 2)), 'one value for each of the three stages'),
        (dict(depths=(1, 2, 0)), r'`arch\.depths\[2\]` is 0; give a whole number of 1 or more'),
        (dict(mlp_ratios=(2, float('nan'), 4)), r'`arch\.mlp_ratios\[1\]` is nan; give a number'),
        (dict(arch=3), '`arch` is 3; name one of tiny'),
        (dict(img_size=(64, 64, 64)), r'`img_size` is \(64, 64, 64\); give an edge, or height and width'),
        (dict(in_channels='3'), "`in_channels` is '3'; give a whole number of 1 or more"),
        (dict(drop_path_rate=20), '`drop_path_rate` is 20; give a number from 0 to 1'),
        (dict(norm_cfg=dict(eps=1e-6)), '`norm_cfg` is .* without a `type`; name the module'),
        (dict(out_indices=None), '`out_indices` is None; the stages are 0, 1 and 2'),
        (dict(out_type='cls_token'), "`out_type` is 'cls_token'; choose one of raw, featmap, avg_featmap"),
        (dict(out_indices=(0, 3)), 'the stages are 0, 1 and 2'),
        (dict(kernel_size=4), 'needs an odd edge'),
        (dict(patch_sizes=(4, 4)), 'one value for each of the three stages'),
        (dict(frozen_stages=4), '`frozen_stages` is 4; choose one of -1, 0, 1, 2, 3'),
        (dict(img_size=100), 'The image is 100 x 100 pixels'),
        (dict(rel_pos='table'), "`rel_pos` is 'table'; choose one of None, shared, per_block, decomposed"),
        (dict(fourth_level='avg_pool'), "`fourth_level` is 'avg_pool'; choose one of None, max_pool, conv"),
        (
            dict(global_attn_indexes=(0, 2)),
            r'`global_attn_indexes` is \(0, 2\); give a list of blocks of stage 3, which are 0 to 1',
        ),
        (dict(fourth_level='conv', out_indices=4), '3 is there with a `fourth_level`'),
    ],
)
def test_wrong_arguments(small_arch, change, message):
    small_arch.update({key: change.pop(key) for key in list(change) if key in small_arch})
    with pytest.raises(ValueError, match=message):
        ConvViT(**{'arch': small_arch, 'img_size': 64, **change})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(embed_dims=(8, 24, 32)),
            r'stages\.0\.patch_embed\.projection\.weight is \(16, 3, 4, 4\) in it and \(8, 3, 4, 4\)',
        ),
        (dict(depths=(1, 2, 3)), 'stage 3 has 2 blocks in it and 3 in this model'),
        (dict(depths=(1, 1, 2)), 'stage 2 has 2 blocks in it and 1 in this model'),
    ],
)
def test_checkpoint_of_another_architecture(small_arch, model, change, message):
    other = ConvViT({**small_arch, **change}, img_size=64)
    with pytest.raises(ValueError, match=f'The checkpoint is of another architecture: .*{message}'):
        other.load_state_dict(model.state_dict(), strict=False)


def test_checkpoint_that_matches_nothing(golden, model):
    official = torch.load(golden('official_tiny_pretrain.pth'), weights_only=True)['model']
    with pytest.raises(ValueError, match="holds nothing of this ConvViT: its names are like 'pos_embed'"):
        model.load_state_dict(official, strict=False)


def test_pretraining_checkpoint_loads_by_prefix(small_arch, small_config, build, tmp_path):
    pretrained = build(small_config)
    torch.save(dict(state_dict=pretrained.state_dict()), tmp_path / 'pretrained.pth')
    model = MODELS.build(
        dict(
            type='mmconvmae.ConvViT',
            arch=small_arch,
            img_size=64,
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'pretrained.pth'), prefix='backbone.'),
        )
    )
    model.init_weights()
    for name, value in pretrained.backbone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_checkpoint_that_is_missing(small_arch, tmp_path):
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'missing.pth'), prefix='backbone.')
    model = ConvViT(small_arch, img_size=64, init_cfg=init_cfg)
    with pytest.raises(FileNotFoundError, match=r'starts from is missing .*missing\.pth.* set .*init_cfg\.checkpoint'):
        model.init_weights()


def test_pretrained_weights_that_match_nothing(small_arch, tmp_path):
    torch.save(dict(state_dict={'other.weight': torch.zeros(1)}), tmp_path / 'other.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'), prefix='backbone.')
    for cfg in (init_cfg, [init_cfg]):
        model = ConvViT(small_arch, img_size=64, init_cfg=cfg)
        with pytest.raises(
            ValueError, match=r'no parameters with its `prefix` \(backbone\. .*other\.pth.*; give the prefix'
        ):
            model.init_weights()

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmconvmae.checkpoint import (
    check_strict,
    from_official,
    infer_model,
    to_official,
)
from mmconvmae.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def official(golden):
    return torch.load(golden('official_tiny_pretrain.pth'), weights_only=True)['model']


@pytest.fixture
def classifier(golden):
    return torch.load(golden('official_tiny_finetune.pth'), weights_only=True)['model']


def test_every_name_and_shape_of_base(golden):
    shapes = json.loads(golden('official_base_pretrain_keys.json').read_text())
    ours = from_official({name: torch.empty(shape, device='meta') for name, shape in shapes.items()})
    config = infer_model(ours)
    assert config['backbone'] == dict(
        type='mmconvmae.ConvMAEViT',
        arch=dict(embed_dims=(256, 384, 768), depths=(2, 2, 11), num_heads=12, mlp_ratios=(4, 4, 4)),
        img_size=224,
        patch_sizes=(4, 2, 2),
        in_channels=3,
        kernel_size=5,
    )
    assert config['neck'] == dict(
        type='mmconvmae.ConvMAEPretrainDecoder',
        multi_scale=True,
        embed_dims=512,
        depth=8,
        mlp_ratio=4,
    )
    check_strict(ours, config)
    assert {name: list(value.shape) for name, value in to_official(ours).items()} == shapes


@pytest.mark.parametrize('kind', ['pretraining', 'encoder', 'single scale', 'classifier'])
def test_there_and_back_bit_for_bit(official, classifier, kind):
    checkpoint = classifier if kind == 'classifier' else official
    if kind == 'encoder':
        checkpoint = {name: value for name, value in official.items() if 'decoder' not in name and name != 'mask_token'}
    if kind == 'single scale':
        checkpoint = {name: value for name, value in official.items() if 'output_decode' not in name}
    ours = from_official(checkpoint)
    config = infer_model(ours)
    check_strict(ours, config)
    config['backbone']['arch']['num_heads'] = 4
    if 'neck' in config:
        config['neck']['num_heads'] = 4
    missing, unexpected = MODELS.build(config).load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(name.startswith(('neck.decoder_', 'neck.mask_token')) for name in missing)
    assert bool(missing) == (kind == 'encoder')
    back = to_official(ours)
    assert back.keys() == checkpoint.keys()
    for name, value in checkpoint.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value), name


def test_foreign_names(official):
    with pytest.raises(ValueError, match=r"2 of 121 names are none of the authors' ConvMAE: cls_token, blocks\.0"):
        from_official({**official, 'cls_token': torch.zeros(1), 'blocks.0.norm1.weight': torch.zeros(1)})


def test_missing_parameter(official):
    del official['blocks3.1.mlp.fc2.weight'], official['norm.bias']
    ours = from_official(official)
    with pytest.raises(
        ValueError, match=r"'backbone\.stages\.2\.blocks\.1\.ffn\.layers\.1\.weight' is missing; 'neck\.fusion\.norm"
    ):
        check_strict(ours, infer_model(ours))
    with pytest.raises(ValueError, match=r"'backbone\.stages\.0\.patch_embed\.projection\.weight' is missing"):
        infer_model({})


def test_shape_that_does_not_fit(official):
    official['blocks2.0.conv1.weight'] = torch.zeros(48, 40, 1, 1)
    ours = from_official(official)
    with pytest.raises(ValueError, match=r'conv1\.weight. is \(48, 40, 1, 1\) and not \(48, 48, 1, 1\)'):
        check_strict(ours, infer_model(ours))


def named(names):
    return {name: torch.randn(2) for name in names}


def test_names_of_the_released_detector(golden):
    """The names are those of the authors' backbone in detectron2's FPN and Mask R-CNN."""
    backbone = json.loads(golden('official_base_pretrain_keys.json').read_text())
    decoder = ('decoder', 'mask_token', 'norm.', 'stage1_', 'stage2_')
    official = named(f'backbone.bottom_up.{name}' for name in backbone if not name.startswith(decoder))
    tables = ('windowed_rel_pos_bias', 'global_rel_pos_bias')
    official.update(named(f'backbone.bottom_up.{name}.relative_position_bias_table' for name in tables))
    expected = {
        f'backbone.bottom_up.{tables[0]}.relative_position_bias_table': 'backbone.stages.2.window_rel_pos.weight',
        'backbone.bottom_up.blocks3.10.mlp.fc2.bias': 'backbone.stages.2.blocks.10.ffn.layers.1.bias',
        'backbone.fpn_lateral2.weight': 'neck.lateral_convs.0.conv.weight',
        'backbone.fpn_lateral2.norm.running_var': 'neck.lateral_convs.0.bn.running_var',
        'backbone.fpn_output5.norm.num_batches_tracked': 'neck.fpn_convs.3.bn.num_batches_tracked',
        'proposal_generator.rpn_head.conv.conv1.bias': 'rpn_head.rpn_conv.1.conv.bias',
        'proposal_generator.rpn_head.objectness_logits.weight': 'rpn_head.rpn_cls.weight',
        'proposal_generator.rpn_head.anchor_deltas.weight': 'rpn_head.rpn_reg.weight',
        'roi_heads.box_head.conv1.weight': 'roi_head.bbox_head.shared_convs.0.conv.weight',
        'roi_heads.box_head.conv4.norm.bias': 'roi_head.bbox_head.shared_convs.3.bn.bias',
        'roi_heads.box_head.fc1.weight': 'roi_head.bbox_head.shared_fcs.0.weight',
        'roi_heads.box_predictor.cls_score.bias': 'roi_head.bbox_head.fc_cls.bias',
        'roi_heads.box_predictor.bbox_pred.bias': 'roi_head.bbox_head.fc_reg.bias',
        'roi_heads.mask_head.mask_fcn4.norm.weight': 'roi_head.mask_head.convs.3.bn.weight',
        'roi_heads.mask_head.deconv.weight': 'roi_head.mask_head.upsample.weight',
        'roi_heads.mask_head.predictor.weight': 'roi_head.mask_head.conv_logits.weight',
    }
    official.update(named(name for name in expected if name not in official))
    derived = [f'backbone.bottom_up.{name}.relative_position_index' for name in tables]
    derived += ['pixel_mean', 'pixel_std', 'proposal_generator.anchor_generator.cell_anchors.0']
    ours = from_official({**official, **named(derived)})
    assert len(ours) == len(official)
    for theirs, name in expected.items():
        assert ours[name] is official[theirs], theirs
    returned = to_official(ours)
    assert {name: returned[name] for name in official} == official
    assert set(returned) - set(official) == set(derived[:2])


def test_the_detector_of_the_config_is_filled(golden):
    """Every name of the config's detector has one in detectron2 that comes back."""
    pytest.importorskip('mmdet.models')
    config = Config.fromfile(CONFIGS / 'detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py')
    init_default_scope('mmdet')
    with torch.device('meta'):
        ours = MODELS.build(config.model).state_dict()
    official = to_official(ours)
    returned = from_official(official)
    assert list(returned) == list(ours)
    assert all(returned[name] is value for name, value in ours.items())
    model = infer_model(returned)
    assert model == dict(
        backbone=dict(
            type='mmconvmae.ConvViT',
            arch=dict(embed_dims=(256, 384, 768), depths=(2, 2, 11), num_heads=12, mlp_ratios=(4, 4, 4)),
            img_size=1024,
            patch_sizes=(4, 2, 2),
            in_channels=3,
            kernel_size=5,
            out_type='featmap',
            out_indices=(0, 1, 2, 3),
            fourth_level='max_pool',
            rel_pos='shared',
            window_size=16,
            global_attn_indexes=(0, 3, 6, 10),
        )
    )
    check_strict(returned, model)
    missing = dict(returned)
    del missing['backbone.stages.2.global_rel_pos.weight']
    with pytest.raises(ValueError, match=r'global_rel_pos\.weight. is missing'):
        check_strict(missing, model)


@pytest.mark.parametrize('prefix', ['backbone.', ''])
def test_names_of_the_released_segmentor(small_arch, build, prefix):
    backbone = dict(
        type='mmconvmae.ConvViT',
        arch=small_arch,
        img_size=64,
        rel_pos='per_block',
        layer_scale_init_value=1.0,
        fourth_level='conv',
        out_type='featmap',
        out_indices=(0, 1, 2, 3),
    )
    heads = {}
    if prefix:
        heads = named(['decode_head.psp_modules.0.1.conv.weight', 'auxiliary_head.convs.0.bn.running_mean'])
    ours = {**{f'backbone.{name}': value for name, value in build(backbone).state_dict().items()}, **heads}
    official = to_official(ours)
    if prefix:
        assert all(official[name] is value for name, value in heads.items())
    expected = {
        'blocks3.1.gamma_1': 'stages.2.blocks.1.attn.gamma1.weight',
        'blocks3.1.gamma_2': 'stages.2.blocks.1.ffn.gamma2.weight',
        'blocks3.0.attn.relative_position_bias_table': 'stages.2.blocks.0.attn.rel_pos.weight',
        'fpn.0.weight': 'fourth_level.0.weight',
        'fpn.1.running_mean': 'fourth_level.1.running_mean',
    }
    for theirs, name in expected.items():
        assert official[prefix + theirs] is ours[f'backbone.{name}']
    index = official[f'{prefix}blocks3.0.attn.relative_position_index']
    assert index.shape == (16, 16)
    for query, key in ((0, 15), (5, 6), (15, 0), (9, 2)):
        rows, columns = query // 4 - key // 4, query % 4 - key % 4
        assert index[query, key] == (rows + 3) * 7 + columns + 3
    returned = from_official(official)
    assert returned.keys() == ours.keys() and all(returned[name] is value for name, value in ours.items())
    model = infer_model(returned)
    assert model == dict(backbone=dict(backbone, patch_sizes=(4, 2, 2), in_channels=3, kernel_size=5))
    check_strict(returned, model)

"""The authors' detector in ViTDet's form, converted: mmdet computes what a plain formulation of detectron2's does."""

import pytest
import torch
import torch.nn.functional as F
from helpers import load, model_of
from mmengine.structures import InstanceData
from reference_detectron2 import ConvViT, MaskRCNN, anchors, apply_deltas

from mmconvmae.checkpoint import check_strict, from_official, infer_model, to_official
from mmconvmae.registry import MODELS

VITDET = 'mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco'
WINDOW, IMG_SIZE, PRETRAIN_IMG_SIZE = 3, 128, 64
CLASSES, WIDTH, HIDDEN = 5, 16, 24
# A grid that the windows do not divide, and of another size than both embeddings are made for; and the usual one.
SIZES = [(128, 160), (128, 128)]


@pytest.fixture
def theirs(small_arch):
    """Their detector with random parameters, none of them at a special value."""
    torch.manual_seed(0)
    edges = (WINDOW, IMG_SIZE // 16)
    net = ConvViT(small_arch, (1,), edges, PRETRAIN_IMG_SIZE // 16)
    model = MaskRCNN(net, small_arch['embed_dims'][2], WIDTH, HIDDEN, CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        # Boxes do not shrink to less than a 62nd, where mmdet stops them and detectron2 does not.
        for layer in (model.proposal_generator.rpn_head.anchor_deltas, model.roi_heads.box_predictor.bbox_pred):
            layer.weight.mul_(0.1)
    return model.eval()


@pytest.fixture
def ours(small_arch, theirs):
    """The model of the config, made smaller, with their parameters."""
    config = model_of(load(VITDET))
    config.backbone.update(
        arch=small_arch,
        img_size=IMG_SIZE,
        pretrain_img_size=PRETRAIN_IMG_SIZE,
        window_size=WINDOW,
        global_attn_indexes=(1,),
        init_cfg=None,
    )
    config.neck.update(in_channels=small_arch['embed_dims'][2], out_channels=WIDTH)
    config.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    for kind in ('bbox', 'mask'):
        config.roi_head[f'{kind}_roi_extractor'].update(out_channels=WIDTH)
        config.roi_head[f'{kind}_head'].update(in_channels=WIDTH, conv_out_channels=WIDTH, num_classes=CLASSES)
    config.roi_head.bbox_head.update(fc_out_channels=HIDDEN)
    model = MODELS.build(config).eval()
    model.load_state_dict(from_official(theirs.state_dict()))
    return model


def close(ours, theirs):
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize('size', SIZES)
def test_backbone_and_pyramid(theirs, ours, size):
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        close(ours.backbone(images)[0], theirs.backbone.net(images))
        for level, expected in zip(ours.extract_feat(images), theirs.backbone(images), strict=True):
            assert level.shape == expected.shape
            close(level, expected)


def test_there_and_back_bit_for_bit(theirs, ours):
    official = theirs.state_dict()
    derived = dict(pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1))
    derived['proposal_generator.anchor_generator.cell_anchors.0'] = torch.zeros(3, 4)
    renamed = from_official({**official, **derived})
    assert renamed.keys() == ours.state_dict().keys()
    back = to_official(renamed)
    assert back.keys() == official.keys()
    assert all(back[name] is value for name, value in official.items())
    assert from_official(back).keys() == renamed.keys()


def test_model_is_read_off_the_tensors(small_arch, theirs, ours):
    # .safetensors files are in the order of the alphabet
    state_dict = from_official(dict(sorted(theirs.state_dict().items())))
    config = infer_model(state_dict)
    assert config == dict(
        backbone=dict(
            type='mmconvmae.ConvViT',
            arch=small_arch | dict(embed_dims=(16, 24, 32), depths=(1, 2, 2), mlp_ratios=(2, 3, 4)),
            img_size=IMG_SIZE,
            pretrain_img_size=PRETRAIN_IMG_SIZE,
            patch_sizes=(4, 2, 2),
            in_channels=3,
            kernel_size=5,
            out_type='featmap',
            out_indices=2,
            fourth_level=None,
            rel_pos='decomposed',
            window_size=WINDOW,
            pad_windows=True,
            global_attn_indexes=(1,),
            conv_norm_cfg=dict(type='LN', eps=1e-6),
        )
    )
    check_strict(state_dict, config)
    backbone = MODELS.build(config['backbone']).eval()
    backbone.load_state_dict(ours.backbone.state_dict())
    images = torch.randn(1, 3, 96, 80)
    with torch.no_grad():
        assert torch.equal(backbone(images)[0], ours.backbone(images)[0])


def pooled(levels, box, edge):
    """What lies in a box of the level that fits its size."""
    roi_align = pytest.importorskip('torchvision.ops').roi_align
    size = (box[2:] - box[:2]).prod().sqrt()
    level = int((4 + torch.log2(size / 224)).floor().clamp(2, 5)) - 2
    return roi_align(levels[level][:1], [box[None]], edge, 1 / 2 ** (level + 2), aligned=True)


def test_heads_and_the_first_proposal_and_detection(theirs, ours):
    height, width = 128, 160
    images = torch.randn(1, 3, height, width)
    meta = dict(
        img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), pad_shape=(height, width)
    )
    with torch.no_grad():
        levels, feats = theirs.backbone(images), ours.extract_feat(images)
        best = (-torch.inf, None)
        for level, *results in zip(levels, *ours.rpn_head(feats)):
            scores, deltas = theirs.proposal_generator.rpn_head(level)
            close(results[0][0].permute(1, 2, 0), scores)
            close(results[1][0].unflatten(0, (3, 4)).permute(2, 3, 0, 1), deltas)
            boxes = apply_deltas(anchors(height // scores.shape[0], *scores.shape[:2]), deltas, (1, 1, 1, 1))
            best = max(best, (scores.max(), boxes.flatten(0, 2)[scores.argmax()]), key=lambda pair: pair[0])
        limits = torch.tensor([width, height, width, height])
        proposals = ours.rpn_head.predict_by_feat(*ours.rpn_head(feats), batch_img_metas=[meta], rescale=False)[0]
        close(proposals.bboxes[0], best[1].clamp(min=0).minimum(limits))

        heads = theirs.roi_heads
        boxes = proposals.bboxes[:20]
        features = torch.cat([pooled(levels, box, 7) for box in boxes])
        scores, deltas = heads.box_predictor(heads.box_head(features))
        box, label = divmod(int(scores.argmax()), CLASSES)
        detected = apply_deltas(boxes[box], deltas[box, label], (10, 10, 5, 5)).clamp(min=0).minimum(limits)
        result = ours.roi_head.predict_bbox(
            feats, [meta], [InstanceData(bboxes=boxes)], ours.roi_head.test_cfg, rescale=False
        )[0]
        assert result.labels[0] == label
        close(result.scores[0], scores.max())
        close(result.bboxes[0], detected)

        rois = torch.cat([torch.zeros(1, 1), detected[None]], 1)
        close(
            ours.roi_head._mask_forward(feats, rois)['mask_preds'],
            heads.mask_head(pooled(levels, detected, 14)),
        )


def test_images_are_prepared_as_theirs():
    """Red first, ImageNet's mean and deviation in 256ths, zeros below and to the right of a square."""
    config = load(VITDET)
    preprocessor = MODELS.build(config.model.data_preprocessor)
    image = torch.arange(3, dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 4) * 100  # blue, green, red
    out = preprocessor(dict(inputs=[image], data_samples=None))['inputs'][0]
    assert out.shape == (3, 1024, 1024)
    expected = (torch.tensor([200, 100, 0]) - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor(
        [58.395, 57.12, 57.375]
    )
    torch.testing.assert_close(out[:, :2, :4], expected.view(3, 1, 1).expand(3, 2, 4))
    assert not out[:, 2:].any() and not out[:, :, 4:].any()


def test_bicubic_embedding_is_resized_in_each_forward_pass(ours):
    """It stays as it was pretrained, and gets a gradient through the resizing."""
    embedding = ours.backbone.stages[2].pos_embed
    assert embedding.weight.shape == (1, 16, 32)
    upstream = torch.randn(1, 80, 32)
    (embedding((8, 10)) * upstream).sum().backward()
    maps = torch.zeros(1, 32, 4, 4, requires_grad=True)
    (F.interpolate(maps, (8, 10), mode='bicubic').flatten(2).mT * upstream).sum().backward()
    torch.testing.assert_close(embedding.weight.grad, maps.grad.flatten(2).mT)

"""The configs of detection: mmdet's models, data sets and losses with our backbone."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import build_on_meta, load, names_in, optimizer_of, save_backbone
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from mmconvmae.checkpoint import to_official
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_parameters

RELEASED = 'mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco'
VITDET = 'mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco'
MINIATURE = 'mask-rcnn_convvit-tiny-p16_fpn_1xb2-10e_mini-coco-384px'


@pytest.fixture
def small(mini_coco):
    """The config of the miniature COCO with a small model and 128-pixel images."""
    config = load(MINIATURE)
    config.model.backbone.update(arch='tiny', img_size=128, window_size=3)
    config.model.data_preprocessor.pad_size_divisor = 128
    for dataset in (config.train_dataloader.dataset.dataset, config.val_dataloader.dataset):
        dataset.data_root = f'{mini_coco}/'
        next(step for step in dataset.pipeline if step['type'] == 'Resize')['scale'] = (128, 128)
    return config


def batch_of(config, model, training):
    wrapped = config.train_dataloader.dataset.dataset if training else config.val_dataloader.dataset
    dataset = DATASETS.build(wrapped)
    return model.data_preprocessor(pseudo_collate([dataset[i] for i in range(len(dataset))]), training=training)


@pytest.mark.parametrize('name', names_in('detection'))
def test_model_takes_images_of_the_pipelines(name):
    config = load(name)
    model = build_on_meta(config)
    size = config.image_size
    assert config.model.backbone.img_size == config.model.data_preprocessor.pad_size_divisor == size
    levels = model.extract_feat(torch.rand(1, 3, size, size, device='meta'))
    assert [tuple(x.shape[2:]) for x in levels] == [(size // stride, size // stride) for stride in (4, 8, 16, 32, 64)]
    for dataloader in (config.train_dataloader, config.val_dataloader):
        dataset = dataloader.dataset.get('dataset', dataloader.dataset)
        resize = next(step for step in dataset.pipeline if 'Resize' in step['type'])
        assert tuple(resize.scale) == (size, size)
    assert config.val_dataloader == config.test_dataloader and config.val_evaluator == config.test_evaluator
    assert config.custom_imports.imports == ['mmconvmae']
    optimizer_of(config, model)


def test_parameters_are_those_of_the_released_code():
    model = build_on_meta(load(RELEASED))
    assert count_parameters(model) / 1e6 == pytest.approx(110.2, abs=0.05)
    assert count_parameters(model.backbone) / 1e6 == pytest.approx(87.80, abs=0.005)


@pytest.mark.parametrize('epochs', [25, 50, 100])
def test_recipe_is_the_released_one(epochs):
    config = load(f'mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-{epochs}e_coco')
    optimizer = config.optim_wrapper.optimizer
    assert optimizer == dict(type='AdamW', lr=8e-5, betas=(0.9, 0.999), weight_decay=0.1)
    assert (config.optim_wrapper.type, config.optim_wrapper.dtype) == ('mmconvmae.AutocastOptimWrapper', 'float16')
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 32
    warmup, cosine = config.param_scheduler
    images, share = 118_000, 0.125 / 100
    assert warmup.end == pytest.approx(share * 100 * images / 32, abs=1)  # of 100 epochs, however long the training
    assert warmup.start_factor == 0.001 and cosine.eta_min == 0 and config.train_cfg.max_epochs == epochs
    resize, crop, _, flip = config.train_pipeline[2:6]
    assert (resize.ratio_range, crop.crop_size, flip.prob) == ((0.1, 2.0), (1024, 1024), 0.5)
    model = build_on_meta(config)
    blocks = model.backbone.stages[2].blocks
    assert [i for i, block in enumerate(blocks) if not block.attn.window_size] == [0, 3, 6, 10]
    assert len(model.rpn_head.rpn_conv) == 2 and len(model.roi_head.bbox_head.shared_convs) == 4
    norms = [module for module in model.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(norms) == 8 + 4 + 4  # of the pyramid, the box head and the mask head
    spared = [group for group in optimizer_of(config, model).param_groups if group['weight_decay'] == 0]
    names = {id(p): name for name, p in model.named_parameters()}
    spared_names = {names[id(g['params'][0])] for g in spared}
    assert {name for name in spared_names if 'rel_pos' in name or 'pos_embed' in name} == {
        'backbone.stages.2.pos_embed.weight',
        'backbone.stages.2.window_rel_pos.weight',
        'backbone.stages.2.global_rel_pos.weight',
    }
    assert 'backbone.stages.2.blocks.0.ln1.weight' in spared_names
    assert 'backbone.stages.2.token_embed.weight' not in spared_names


def test_vitdet_recipe():
    config = load(VITDET)
    assert config.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1)
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16
    warmup, steps = config.param_scheduler
    assert (warmup.end, warmup.start_factor, config.train_cfg.max_iters) == (250, 0.001, 184375)
    assert (steps.milestones, steps.gamma) == ([163889, 177546], 0.1)
    model = build_on_meta(config)
    blocks = model.backbone.stages[2].blocks
    assert [block.attn.window_size for block in blocks] == [14, 0, 14, 14, 0, 14, 14, 0, 14, 14, 0]
    assert blocks[0].attn.rel_pos.rows.weight.shape == (27, 64)
    assert blocks[1].attn.rel_pos.rows.weight.shape == (127, 64)
    assert all(block.attn.pad_windows for block in blocks)
    assert model.backbone.stages[2].pos_embed.weight.shape == (1, 14 * 14, 768)
    assert {name for name, _ in model.backbone.named_children()} == {'stages'}  # no norm and no level after them
    for stage in model.backbone.stages:
        assert stage.patch_embed.norm.eps == 1e-5
        assert {norm.eps for block in stage.blocks for norm in (block.ln1, block.ln2)} == {1e-6}
    convs = [*model.roi_head.bbox_head.shared_convs, *model.roi_head.mask_head.convs]
    assert {conv.norm.eps for conv in convs} == {1e-6} and all(conv.conv.bias is None for conv in convs)
    assert count_parameters(model) == 109_700_272


def test_vitdet_groups_are_those_of_the_released_code():
    """By the rules there, on the names there."""
    config = load(VITDET)
    model = build_on_meta(config)
    groups = {id(group['params'][0]): group for group in optimizer_of(config, model).param_groups}
    official = to_official(dict(model.named_parameters()))
    assert len(groups) == len(official)
    for name, parameter in official.items():
        layer = 12
        if re.search(r'\.(patch_embed\d|blocks[12])\.', name):
            layer = 0
        elif block := re.search(r'\.blocks3\.(\d+)\.', name):
            layer = int(block[1]) + 1
        # Norms of PyTorch are told from weights, and those of detectron2 in the pyramid and the heads are not.
        spared = name == 'backbone.net.pos_embed' or re.fullmatch(r'backbone\.net\..*\.norm\d?\.(weight|bias)', name)
        group = groups[id(parameter)]
        assert group['lr'] == pytest.approx(1e-4 * 0.8 ** (12 - layer)), name
        assert group['weight_decay'] == (0 if spared else 0.1), name


def test_a_step_and_a_prediction_from_files(small):
    torch.manual_seed(0)
    model = MODELS.build(small.model).train()
    batch = batch_of(small, model, training=True)
    assert batch['inputs'].shape == (2, 3, 128, 128)
    assert [len(sample.gt_instances) for sample in batch['data_samples']] == [16, 7]
    losses = model(**batch, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.backbone.stages[2].global_rel_pos.weight.grad.any()
    with torch.no_grad():
        results = model.eval()(**batch_of(small, model, training=False), mode='predict')
    assert [tuple(sample.pred_instances.masks.shape[1:]) for sample in results] == [(375, 350), (480, 448)]


def test_large_scale_jitter_from_files(mini_coco):
    """Whatever the jitter, a batch has the config's size, and masks and boxes go with the image."""
    config, miniature = load(RELEASED), load(MINIATURE)
    dataset = dict(config.train_dataloader.dataset, data_root=f'{mini_coco}/', metainfo=dict(classes=miniature.classes))
    dataset = DATASETS.build(dataset)
    preprocessor = MODELS.build(config.model.data_preprocessor)
    torch.manual_seed(0)
    np.random.seed(0)
    areas = set()
    for _ in range(4):
        batch = preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
        assert batch['inputs'].shape == (2, 3, 1024, 1024)
        for sample in batch['data_samples']:
            areas.add(sample.img_shape)
            masks = sample.gt_instances.masks.masks
            assert masks.shape == (len(sample.gt_instances), 1024, 1024)
            for box, mask in zip(sample.gt_instances.bboxes, masks):
                ys, xs = mask.nonzero()
                if len(xs):
                    edges = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                    assert (edges - box).abs().max() <= 2
    assert len(areas) > 2


def test_padding_to_one_size_makes_batches_of_images_alone(small, mini_coco):
    """The recipe pads every image to one size, so that features do not depend on the batch."""
    model = MODELS.build(small.model).eval()
    dataset = DATASETS.build(small.val_dataloader.dataset)
    with torch.no_grad():
        together = model.extract_feat(model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]))['inputs'])
        for i in range(2):
            alone = model.extract_feat(model.data_preprocessor(pseudo_collate([dataset[i]]))['inputs'])
            for x, y in zip(together, alone):
                torch.testing.assert_close(x[i : i + 1], y, rtol=1e-4, atol=1e-5)


def test_image_smaller_than_a_window(small):
    """It is the whole window: the same boxes whatever the windows' edge, which its table is cut to."""
    from mmdet.structures import DetDataSample

    config = small.model
    config.backbone.update(window_size=5, global_attn_indexes=())
    config.data_preprocessor.pad_size_divisor = 32
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    torch.nn.init.normal_(model.backbone.stages[2].window_rel_pos.weight)
    config.backbone.window_size = 8
    wider = MODELS.build(config).eval()
    state_dict = model.state_dict()
    table = state_dict['backbone.stages.2.window_rel_pos.weight'].view(9, 9, 6)
    padded = torch.zeros(15, 15, 6)
    padded[3:12, 3:12] = table  # the same biases for the same offsets
    state_dict['backbone.stages.2.window_rel_pos.weight'] = padded.view(225, 6)
    wider.load_state_dict(state_dict)
    inputs = dict(inputs=[torch.randint(256, (3, 40, 64), dtype=torch.uint8)])  # 4 x 4 tokens with padding
    with torch.no_grad():
        for x, y in zip(*(m.extract_feat(m.data_preprocessor(inputs)['inputs']) for m in (model, wider))):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
        sizes = dict(img_shape=(40, 64), ori_shape=(40, 64), scale_factor=(1.0, 1.0), batch_input_shape=(64, 64))
        results = model.predict(model.data_preprocessor(inputs)['inputs'], [DetDataSample(metainfo=sizes)])
    assert results[0].pred_instances.masks.shape[1:] == (40, 64)


@pytest.fixture
def change_annotations(mini_coco, small, tmp_path):
    """Copies the data set, changes its training annotations and points the config to the copy."""

    def change(function):
        root = tmp_path / 'coco'
        shutil.copytree(mini_coco, root)
        path = root / 'annotations' / 'instances_train2017.json'
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))
        small.train_dataloader.dataset.dataset.data_root = f'{root}/'
        return small

    return change


def test_image_without_a_box_is_left_out(change_annotations):
    config = change_annotations(
        lambda content: content.update(annotations=[a for a in content['annotations'] if a['image_id'] == 2])
    )
    dataset = DATASETS.build(config.train_dataloader.dataset.dataset)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [2]


@pytest.mark.parametrize('box', [[10.0, 20.0, 0.0, 0.0], [-50.0, -50.0, 10.0, 10.0]])
def test_annotation_without_area_is_left_out(change_annotations, box):
    def empty(content):
        content['annotations'][0].update(bbox=box, area=0)

    dataset = DATASETS.build(change_annotations(empty).train_dataloader.dataset.dataset)
    assert len(dataset.get_data_info(0)['instances']) == 15


def test_training_goes_on_with_a_crop_that_has_no_box(small):
    torch.manual_seed(0)
    model = MODELS.build(small.model).train()
    batch = batch_of(small, model, training=True)
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)


def test_image_that_is_missing(change_annotations):
    def rename(content):
        content['images'][1]['file_name'] = 'gone.jpg'

    dataset = DATASETS.build(change_annotations(rename).train_dataloader.dataset.dataset)
    dataset[0]
    with pytest.raises(OSError, match=r'The image .*train2017/gone\.jpg is unreadable .* take it out of the data set'):
        dataset[1]


def test_image_that_is_truncated(change_annotations):
    config = change_annotations(lambda content: None)
    dataset = DATASETS.build(config.train_dataloader.dataset.dataset)
    path = Path(dataset.get_data_info(0)['img_path'])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match=f'The image {path} is unreadable or truncated'):
        dataset[0]


def pretrained(build, path, arch):
    """A backbone pretrained at 64 pixels and a config that starts from it."""
    backbone = build(dict(type='mmconvmae.ConvMAEViT', arch=arch, img_size=64))
    checkpoint = save_backbone(backbone.state_dict(), path)
    return backbone, dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')


def test_checkpoint_of_pretraining_at_another_size(small, build, tmp_path):
    """It fills a detector for 128 pixels: the position embedding is resized."""
    backbone, small.model.backbone.init_cfg = pretrained(build, tmp_path / 'ours.pth', 'tiny')
    model = MODELS.build(small.model)
    model.init_weights()
    state_dict = model.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        if name == 'stages.2.pos_embed.weight':
            maps = value.view(1, 4, 4, -1).permute(0, 3, 1, 2)
            value = torch.nn.functional.interpolate(maps, (8, 8), mode='bicubic', align_corners=False)
            value = value.flatten(2).transpose(1, 2)
        torch.testing.assert_close(state_dict[name], value)


def test_checkpoint_of_another_architecture(small, build, small_arch, tmp_path):
    _, small.model.backbone.init_cfg = pretrained(build, tmp_path / 'ours.pth', small_arch)
    with pytest.raises(ValueError, match='The checkpoint is of another architecture: stages'):
        MODELS.build(small.model).init_weights()


def test_detector_checkpoint_of_another_size(small):
    """A detector trained at 128 pixels is tested at 160: tables and embeddings are resized as it is loaded."""
    torch.manual_seed(0)
    model = MODELS.build(small.model).eval()
    for table in (model.backbone.stages[2].window_rel_pos, model.backbone.stages[2].global_rel_pos):
        torch.nn.init.normal_(table.weight)
    small.model.backbone.img_size = 160
    other = MODELS.build(small.model).eval()
    other.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        for x, y in zip(model.extract_feat(images), other.extract_feat(images)):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)

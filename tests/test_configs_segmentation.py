"""The configs of segmentation: mmseg's models, data sets and losses with our backbone."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import build_on_meta, load, model_of, names_in, optimizer_of, save_backbone
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, PARAM_SCHEDULERS
from reference import biased_attention, encode

from mmconvmae.checkpoint import to_official
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_parameters

RELEASED = 'upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512'
MAX_POOL = 'upernet_convvit-base-p16-maxpool_8xb2-amp-160k_ade20k-512x512'
MULTI_SCALE = 'upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512-ms'
MINIATURE = 'upernet_convvit-tiny-p16_1xb2-600i_mini-ade20k-256x256'


@pytest.fixture
def small(mini_ade20k):
    """The config of the miniature data set with a narrow head."""
    config = load(MINIATURE)
    config.model.decode_head.channels = config.model.auxiliary_head.channels = 16
    for dataloader in (config.train_dataloader, config.val_dataloader):
        dataloader.dataset.data_root = str(mini_ade20k)
    return config


def batch_of(config, model, split, indices=(0, 1)):
    dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
    training = split == 'train'
    return model.data_preprocessor(pseudo_collate([dataset[i] for i in indices]), training=training)


@pytest.mark.parametrize('name', names_in('segmentation'))
def test_model_takes_images_of_the_pipelines(name):
    config = load(name)
    model = build_on_meta(config)
    size = tuple(config.crop_size)
    assert tuple(model_of(config).backbone.img_size) == size
    (crop,) = [step for step in config.train_pipeline if step['type'] == 'RandomCrop']
    preprocessor = model_of(config).data_preprocessor
    assert config.data_preprocessor == preprocessor  # mmengine gives this one to what tests several scales
    assert tuple(crop.crop_size) == tuple(preprocessor.size) == tuple(preprocessor.test_cfg['size']) == size
    assert tuple(model.test_cfg.crop_size) == size and model.test_cfg.mode == 'slide'
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    feats = model.extract_feat(torch.rand(2, 3, *size, device='meta'))
    assert [x.shape[1] for x in feats] == list(model.decode_head.in_channels)
    logits = model.decode_head(feats)
    assert logits.shape[1] == model.decode_head.num_classes and model.auxiliary_head(feats).shape[2] == size[0] // 16
    assert config.val_evaluator == config.test_evaluator and config.custom_imports.imports == ['mmconvmae']
    optimizer_of(config, model)


@pytest.mark.parametrize(('name', 'millions'), [(RELEASED, 158.4), (MAX_POOL, 153.1)])
def test_parameters_are_those_of_the_released_code_and_of_the_paper(name, millions):
    model = build_on_meta(load(name))
    assert count_parameters(model.backbone, model.decode_head) / 1e6 == pytest.approx(millions, abs=0.05)
    if name == RELEASED:
        assert count_parameters(model.backbone) / 1e6 == pytest.approx(91.09, abs=0.005)


def test_recipe_is_the_released_one():
    config = load(RELEASED)
    assert config.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 16
    warmup, poly = config.param_scheduler
    assert (warmup.end, warmup.start_factor) == (1500, 1e-6)
    assert (poly.power, poly.eta_min, config.train_cfg.max_iters) == (1.0, 0.0, 160000)
    assert 'end' not in poly  # the runner ends it with the last iteration
    assert (config.optim_wrapper.type, config.optim_wrapper.dtype) == ('mmconvmae.AutocastOptimWrapper', 'bfloat16')
    assert [step['type'] for step in config.train_pipeline[3:7]] == [
        'RandomResize',
        'RandomCrop',
        'RandomFlip',
        'PhotoMetricDistortion',
    ]
    model = build_on_meta(config)
    assert model.backbone.stages[2].blocks[-1].attn.out_drop.drop_prob == 0.2
    assert {block.ln1.eps for stage in model.backbone.stages for block in stage.blocks} == {1e-5}
    assert isinstance(model.backbone.fourth_level[1], torch.nn.SyncBatchNorm)
    assert (model.decode_head.channels, model.auxiliary_head.channels, len(model.auxiliary_head.convs)) == (768, 256, 1)
    assert model.auxiliary_head.loss_decode.loss_weight == 0.4
    assert tuple(model.test_cfg.stride) == (341, 341)


def test_learning_rate_rises_and_falls_as_in_the_released_recipe():
    """The released code multiplies what the polynomial gives with the warm-up, also while that lasts."""
    config = load(RELEASED)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optimizer, end=config.train_cfg.max_iters))
        for s in config.param_scheduler
    ]
    for iteration in range(3000):
        warmup = 1 - (1 - iteration / 1499) * (1 - 1e-6) if iteration < 1500 else 1
        assert optimizer.param_groups[0]['lr'] == pytest.approx((1 - iteration / 160000) * warmup, rel=1e-3, abs=1e-6)
        for scheduler in schedulers:
            scheduler.step()


def test_groups_follow_the_released_rule():
    config = load(RELEASED)
    model = build_on_meta(config)
    groups = optimizer_of(config, model).param_groups
    assert sorted(group['param_name'] for group in groups) == sorted(name for name, _ in model.named_parameters())
    official = to_official({group['param_name']: group['params'][0] for group in groups})
    names = [name for name in official if not name.endswith('relative_position_index')]
    for name, group in zip(names, groups, strict=True):
        layer = 12
        if name.startswith(('backbone.pos_embed', 'backbone.patch_embed', 'backbone.blocks1', 'backbone.blocks2')):
            layer = 0
        elif name.startswith('backbone.blocks3'):
            layer = int(name.split('.')[2]) + 1
        assert group['lr'] == pytest.approx(1e-4 * 0.75 ** (12 - layer)), name
        (parameter,) = group['params']
        spared = parameter.dim() == 1 or name.endswith('.bias') or name == 'backbone.pos_embed'
        assert group['weight_decay'] == (0.0 if spared else 0.05), name


def test_features_equal_reference(build, small_arch):
    backbone = dict(load(RELEASED).model.backbone, arch=small_arch, init_cfg=None)
    model = build(backbone).eval()
    sd = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    images = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        stage1, stage2, tokens = encode(
            sd,
            images,
            num_heads=2,
            attention_of_block=lambda n, grid: biased_attention(
                sd[f'backbone.stages.2.blocks.{n}.attn.rel_pos.weight'], 32
            ),
            eps=1e-5,
        )
        stage3 = tokens.transpose(1, 2).unflatten(2, (32, 32))
        conv, norm = model.fourth_level[:2]
        level4 = torch.nn.functional.conv2d(stage3, conv.weight, conv.bias, stride=2)
        level4 = (level4 / (1 + norm.eps) ** 0.5) * norm.weight[:, None, None] + norm.bias[:, None, None]
        outs = model(images)
    for x, expected in zip(outs, (stage1, stage2, stage3, torch.nn.functional.gelu(level4))):
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_a_step_and_a_prediction_from_files(small):
    torch.manual_seed(0)
    model = MODELS.build(small.model).train()
    batch = batch_of(small, model, 'train')
    assert batch['inputs'].shape == (2, 3, 256, 256)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        (result,) = model.eval()(**batch_of(small, model, 'val', (0,)), mode='predict')
    assert result.pred_sem_seg.data.shape == (1, 375, 350)


def test_slide_inference_is_whole_inference_where_one_window_fits(small):
    torch.manual_seed(0)
    small.model.test_cfg.update(crop_size=(512, 512), stride=(341, 341))
    model = MODELS.build(small.model).eval()
    image = torch.randn(1, 3, 512, 683)
    meta = [dict(ori_shape=(512, 683), img_shape=(512, 683), pad_shape=(512, 683))]
    with torch.no_grad():
        slide = model.slide_inference(image, meta)
        left, right = (model.encode_decode(image[..., start : start + 512], meta) for start in (0, 171))
    torch.testing.assert_close(slide[..., :171], left[..., :171], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slide[..., 512:], right[..., 341:], rtol=1e-4, atol=1e-5)
    both = (left[..., 171:] + right[..., :341]) / 2
    torch.testing.assert_close(slide[..., 171:512], both, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        square = model.slide_inference(image[..., :512], meta)
    torch.testing.assert_close(square, left, rtol=1e-4, atol=1e-5)


def test_image_smaller_than_the_sliding_window(small):
    """It is padded to the window, and the prediction has its own size."""
    torch.manual_seed(0)
    model = MODELS.build(small.model).eval()
    dataset = DATASETS.build(small.val_dataloader.dataset)
    sample = dataset[0]
    sample['inputs'] = sample['inputs'][:, :100, :301]
    sample['data_samples'].set_metainfo(dict(img_shape=(100, 301), ori_shape=(100, 301)))
    with torch.no_grad():
        (result,) = model.test_step(pseudo_collate([sample]))
    assert result.pred_sem_seg.data.shape == (1, 100, 301)


def test_several_scales_and_flipping(small):
    """The config for them averages the probabilities of every scale and side."""
    config = load(MULTI_SCALE)
    model = config.model.copy()
    model.module = small.model
    torch.manual_seed(0)
    tester = MODELS.build(model).eval()
    pipeline = [dict(step) for step in config.test_dataloader.dataset.pipeline]
    scales, flips = pipeline[1]['transforms'][:2]
    assert [step['scale_factor'] for step in scales] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and len(flips) == 2
    pipeline[1]['transforms'][0] = scales[:2]  # 256 and 375 pixels: of the window's size and larger
    dataset = DATASETS.build(dict(small.val_dataloader.dataset, pipeline=pipeline))
    data = pseudo_collate([dataset[0]])
    with torch.no_grad():
        (result,) = tester.test_step(data)
        probabilities = 0
        for inputs, samples in zip(data['inputs'], data['data_samples']):
            (single,) = tester.module.test_step(dict(inputs=inputs, data_samples=samples))
            probabilities = probabilities + single.seg_logits.data.softmax(0) / 4
    assert torch.equal(result.pred_sem_seg.data.squeeze(0), probabilities.argmax(0))


def test_checkpoint_of_pretraining_loads(small, build, tmp_path):
    backbone = build(dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=64))
    checkpoint = save_backbone(backbone.state_dict(), tmp_path / 'ours.pth')
    small.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    model = MODELS.build(small.model)
    model.init_weights()
    loaded = model.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        if name != 'stages.2.pos_embed.weight':
            assert torch.equal(loaded[name], value), name
    assert loaded['stages.2.pos_embed.weight'].shape == (1, 256, 192)
    assert all(not loaded[name].any() for name in loaded if 'rel_pos' in name)
    assert all((loaded[name] == 1).all() for name in loaded if 'gamma' in name)


@pytest.mark.parametrize('kind', ['missing', 'truncated'])
def test_image_that_cannot_be_read(small, mini_ade20k, tmp_path, kind):
    root = tmp_path / 'ade'
    shutil.copytree(mini_ade20k, root)
    small.train_dataloader.dataset.data_root = str(root)
    dataset = DATASETS.build(small.train_dataloader.dataset)
    path = Path(dataset.get_data_info(1)['img_path'])
    if kind == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:3000])
    dataset[0]
    with pytest.raises(OSError, match=f'The image {path} is unreadable or truncated .* take it out of the data set'):
        dataset[1]

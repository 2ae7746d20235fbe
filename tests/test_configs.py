import copy
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from helpers import (
    CONFIGS,
    ROOT,
    batch_from_file,
    build_on_meta,
    library_of,
    load,
    optimizer_of,
    save_backbone,
    write_config,
)
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from PIL import Image

from mmconvmae.checkpoint import to_official
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds, count_parameters

PRETRAINING = [name for name in CONFIGS if name.startswith(('convmae_', 'fastconvmae_'))]
CLASSIFICATION = [name for name in CONFIGS if name.startswith('convvit-')]
FINETUNING = 'convvit-base-p16_8xb128-coslr-100e_in1k'
LINEAR = 'convvit-base-p16_8xb512-linear-coslr-90e_in1k'


@pytest.mark.parametrize('name', PRETRAINING)
def test_model_trains_on_images_of_the_pipeline(name):
    config = load(name)
    model = build_on_meta(config)
    (crop,) = [step for step in config.train_pipeline if step['type'].endswith('RandomResizedCrop')]
    loss = model.loss(torch.rand(2, 3, crop['scale'], crop['scale'], device='meta'), None)['loss']
    loss.backward()
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline


@pytest.mark.parametrize('name', PRETRAINING)
def test_recipe_is_the_papers(name):
    config = load(name)
    assert config.custom_imports.imports == ['mmconvmae']
    assert config.model.mask_generator.mask_ratio == 0.75
    assert config.auto_scale_lr.enable and config.randomness.diff_rank_seed
    if 'tiny' in name:  # not in the paper
        return
    optimizer = config.optim_wrapper.optimizer
    base_lr = 6e-4 if name.startswith('fast') else 1.5e-4  # four views of an image count as one
    assert optimizer.lr == pytest.approx(base_lr * config.auto_scale_lr.base_batch_size / 256)
    assert (optimizer.type, tuple(optimizer.betas), optimizer.weight_decay) == ('AdamW', (0.9, 0.95), 0.05)
    assert (config.optim_wrapper.type, config.optim_wrapper.dtype) == ('mmconvmae.AutocastOptimWrapper', 'bfloat16')
    gpus, batch = name.split('_')[2].split('-')[0].split('xb')
    assert config.train_dataloader.batch_size == int(batch)
    assert int(gpus) * int(batch) == config.auto_scale_lr.base_batch_size
    assert f'coslr-{config.train_cfg.max_epochs}e' in name
    warmup, cosine = config.param_scheduler
    epochs = 10 if '4-crops' in name or name.startswith('fast') else 40  # an epoch has four crops or views of an image
    assert (warmup.begin, warmup.end, cosine.begin) == (0, epochs, epochs)
    assert 'end' not in cosine and 'T_max' not in cosine  # the runner ends it with the last epoch


def test_fast_step_costs_less_than_maes():
    counts = []
    for name in (
        'convmae_convvit-base-p16-fast_8xb256-amp-coslr-200e_in1k',
        'mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k',
    ):
        model = build_on_meta(load(name))
        counts.append(count_multiply_adds(model.loss, torch.empty(1, 3, 224, 224, device='meta'), None))
    assert counts[0] < 0.8 * counts[1]


def test_complementary_views_see_an_image_four_times():
    config = load('fastconvmae_convvit-base-p16_8xb64-amp-coslr-50e_in1k')
    usual = load('convmae_convvit-base-p16_8xb256-amp-coslr-200e_in1k')
    counts = [
        count_multiply_adds(build_on_meta(part).loss, torch.empty(1, 3, 224, 224, device='meta'), None)
        for part in (config, usual)
    ]
    assert counts[0] == 4 * counts[1]


def test_crops_of_an_image_decoded_once(tmp_path):
    """The pipeline of the config with four crops, from files to the loss."""
    config = load('convmae_convvit-base-p16-fast-4-crops_8xb256-amp-coslr-50e_in1k')
    for n in range(2):
        Image.effect_noise((300, 260), 80).convert('RGB').save(tmp_path / f'{n}.jpg')
    loader = config.train_dataloader
    loader.dataset.dataset = dict(
        type='mmconvmae.ImageFolder', data_root=str(tmp_path), pipeline=loader.dataset.dataset.pipeline
    )
    batch = next(iter(Runner.build_dataloader(dict(loader, batch_size=8, num_workers=0), seed=0)))
    assert batch['inputs'].shape == (8, 3, 224, 224)
    config.model.backbone.arch = 'tiny'
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    model.init_weights()
    assert torch.isfinite(model(**model.data_preprocessor(batch, True), mode='loss')['loss'])


def test_weight_decay_spares_one_dimensional_parameters():
    config = load('convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k')
    for group in optimizer_of(config, build_on_meta(config)).param_groups:
        for parameter in group['params']:
            if parameter.requires_grad:
                assert group['weight_decay'] == (0.05 if parameter.ndim > 1 else 0)


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_classifier_takes_images_of_the_pipelines(name):
    config = load(name)
    model = build_on_meta(config)
    backbone = config.model.backbone
    for pipeline in (config.train_pipeline, config.test_pipeline):
        assert backbone.img_size == next(
            step.get('scale', step.get('crop_size'))
            for step in pipeline[::-1]
            if step['type'] in ('RandomResizedCrop', 'CenterCrop', 'ResizeEdge')
        )
    logits = model(torch.rand(2, 3, backbone.img_size, backbone.img_size, device='meta'))
    assert logits.shape == (2, config.data_preprocessor.num_classes)
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    assert config.val_dataloader == config.test_dataloader
    assert config.test_dataloader.dataset.pipeline == config.test_pipeline
    assert config.auto_scale_lr.enable and not config.resume  # a test with `resume` would build the training too


@pytest.mark.parametrize('name', [FINETUNING, LINEAR])
def test_a_step_from_files_to_loss(name, tmp_path):
    config = load(name)
    config.model.backbone.update(arch='tiny', init_cfg=None)
    config.model.head.in_channels = 192
    if 'neck' in config.model:
        config.model.neck.input_features = 192
    model = MODELS.build(dict(config.model, data_preprocessor=dict(config.data_preprocessor))).train()
    for pipeline in (config.train_pipeline, config.test_pipeline):
        batch = model.data_preprocessor(batch_from_file(pipeline, tmp_path), training=True)
        assert batch['inputs'].shape == (2, 3, 224, 224)
        loss = model(**batch, mode='loss')['loss']
        loss.backward()
        assert torch.isfinite(loss)


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_classifier_starts_from_a_pretraining_config(name):
    """All but the head and the norm before it come from a checkpoint of a config that is there."""
    config = load(name)
    checkpoint = Path(config.model.backbone.init_cfg.checkpoint)
    pretraining = load(checkpoint.parent.name)
    assert checkpoint.name == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
    given = {key: value.shape for key, value in build_on_meta(pretraining).backbone.state_dict().items()}
    needed = {key: value.shape for key, value in build_on_meta(config).backbone.state_dict().items()}
    assert set(needed) - set(given) == {'norm2.weight', 'norm2.bias'}
    assert {key: needed[key] for key in given} == given


def test_finetuning_recipe_is_the_papers():
    config = load(FINETUNING)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer == dict(type='AdamW', lr=pytest.approx(5e-4 * 1024 / 256), betas=(0.9, 0.999), weight_decay=0.05)
    assert config.optim_wrapper.dtype is None  # float32
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == 1024
    warmup, cosine = config.param_scheduler
    assert (warmup.end, cosine.begin, config.train_cfg.max_epochs) == (5, 5, 100)
    assert cosine.eta_min_ratio * optimizer.lr == pytest.approx(1e-6)
    assert config.model.backbone.drop_path_rate == 0.1
    assert config.model.head.loss.label_smooth_val == 0.1
    assert config.model.train_cfg.augments == [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    _, _, _, augment, erasing, _ = config.train_pipeline
    assert (augment.magnitude_level, augment.magnitude_std, erasing.erase_prob, erasing.mode) == (9, 0.5, 0.25, 'rand')


def test_linear_recipe_is_the_papers():
    config = load(LINEAR)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer == dict(type='LARS', lr=pytest.approx(0.1 * 4096 / 256), momentum=0.9, weight_decay=0.0)
    assert config.optim_wrapper.dtype is None  # float32
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == 4096
    warmup, cosine = config.param_scheduler
    assert (warmup.end, cosine.begin, cosine.eta_min, config.train_cfg.max_epochs) == (10, 10, 0, 90)
    assert [step['type'] for step in config.train_pipeline[1:3]] == ['RandomResizedCrop', 'RandomFlip']


def test_layer_decay_equals_the_authors(golden):
    expected = json.loads(golden('official_base_layer_decay.json').read_text())
    config = load(FINETUNING)
    classifier = build_on_meta(config)
    assert count_parameters(classifier) / 1e6 == pytest.approx(85.37, abs=0.005)
    groups = optimizer_of(config, classifier).param_groups
    names = to_official({group['param_name']: torch.empty(0) for group in groups})
    ours = {
        name: dict(lr_scale=group['lr_scale'], weight_decay=group['weight_decay']) for name, group in zip(names, groups)
    }
    assert ours.keys() == expected.keys()
    for name, group in ours.items():
        assert group == pytest.approx(expected[name]), name
    for group in groups:
        assert group['lr'] == pytest.approx(config.optim_wrapper.optimizer.lr * group['lr_scale'])


def test_linear_probe_trains_the_head_alone():
    config = load('convvit-tiny-p16_1xb64-linear-coslr-20e_digits-64px')
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.train()
    assert not any(module.training for module in list(model.backbone.modules())[1:])
    assert model.neck.bn.training and not list(model.neck.parameters()) and model.neck.bn.eps == 1e-6
    before = copy.deepcopy(model.state_dict())
    optimizer = optimizer_of(config, model)
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    model.loss(torch.randn(4, 3, 64, 64), samples)['loss'].backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    buffers = {'neck.bn.running_mean', 'neck.bn.running_var', 'neck.bn.num_batches_tracked'}
    assert changed == {'head.fc.weight', 'head.fc.bias', *buffers}
    # The bias takes the learning rate as it is; the step of the weights is a share of their norm (LARS).
    lr = config.optim_wrapper.optimizer.lr
    torch.testing.assert_close(before['head.fc.bias'] - model.head.fc.bias, lr * model.head.fc.bias.grad)
    step = (before['head.fc.weight'] - model.head.fc.weight).norm()
    torch.testing.assert_close(step, 1e-3 * lr * before['head.fc.weight'].norm(), rtol=1e-4, atol=0)


def test_another_size_is_one_number(tmp_path):
    """Finetuning at 384 pixels from a checkpoint of 224."""
    text = CONFIGS[FINETUNING].read_text()
    assert len(re.findall('224', text.replace('256 // 224', ''))) == 1
    text = text.replace('img_size = 224', 'img_size = 384').replace('../../_base_', str(ROOT / 'configs' / '_base_'))
    config = Config.fromfile(write_config(tmp_path / 'finetune.py', text))
    assert config.train_pipeline[1]['scale'] == config.test_pipeline[2]['crop_size'] == 384
    tiny = dict(load('convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px').model.backbone)
    pretrained = MODELS.build(dict(tiny, img_size=224))
    config.model.backbone.update(arch='tiny')
    config.model.backbone.init_cfg.checkpoint = save_backbone(pretrained.state_dict(), tmp_path / 'p.pth')
    config.model.head.in_channels = 192
    model = MODELS.build(config.model)
    model.init_weights()
    grids = [
        backbone.stages[2].pos_embed.weight.unflatten(1, (side, side)).movedim(-1, 1)
        for backbone, side in ((pretrained, 14), (model.backbone, 24))
    ]
    expected = torch.nn.functional.interpolate(grids[0], size=(24, 24), mode='bicubic', align_corners=False)
    torch.testing.assert_close(grids[1], expected)
    assert model(torch.randn(1, 3, 384, 384)).shape == (1, 1000)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_opens_with_what_it_reproduces_and_the_command(name):
    path = CONFIGS[name]
    opening = re.match(r'(# [A-Z]\S* \S.*\n(?:# ?.*\n)*?)((?:#     .*\n)+)(?!#)', path.read_text())
    words = shlex.split(re.sub(r'(?m)^#', '', opening[2]).replace('\\\n', ' '))
    library = dict(mmdet='mmdetection', mmaction='mmaction2').get(library_of(name), library_of(name))
    assert words[:4] == ['mim', 'train', library, path.relative_to(ROOT).as_posix()]
    gpus = re.search(r'_(\d+)xb', name)[1]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options.get('--gpus', '1') == gpus and options.keys() <= {'--launcher', '--gpus', '--gpus-per-node'}

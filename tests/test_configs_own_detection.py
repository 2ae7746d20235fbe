"""The templates for boxes and outlines of objects, copied and changed as people do it."""

import json

import numpy as np
import pytest
import torch
from helpers import ROOT, copy_template, require
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner

require('mmdet')

RNG = np.random.default_rng(0)
SMALL = dict(arch='tiny', image_size=64, batch_size=2, max_epochs=1, classes=('cat', 'dog'))


@pytest.fixture
def data_root(tmp_path):
    """Images with a bright rectangle in each, and their annotations."""
    root = tmp_path / 'my data'
    (root / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        (root / part).mkdir()
        images, annotations = [], []
        for index in range(4):
            image = (RNG.random((48, 64, 3)) * 100).astype(np.uint8)
            image[10:40, 8:44] = 250
            Image.fromarray(image).save(root / part / f'{index}.jpg')
            images.append(dict(id=index, file_name=f'{index}.jpg', width=64, height=48))
            outline = [[8, 10, 44, 10, 44, 40, 8, 40]]
            annotations.append(
                dict(
                    id=index,
                    image_id=index,
                    category_id=1 + index % 2,
                    bbox=[8, 10, 36, 30],
                    area=1080,
                    iscrowd=0,
                    segmentation=outline,
                )
            )
        categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'{part}.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def copied(tmp_path, data_root):
    """Copies a template, with small settings and others; gives its config, to run in this process."""

    def copied(name, **settings):
        init_default_scope('mmdet')
        settings = SMALL | dict(data_root=f'{data_root}/') | settings
        path = copy_template(name, tmp_path / f'my_{name}.py', **settings)
        config = Config.fromfile(path)
        config.work_dir = str(tmp_path / 'work')
        config.experiment_name = config.work_dir.replace('/', '_') + name
        for part in ('train', 'val', 'test'):
            config[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
        # So that there is something to measure so early.
        getattr(config.model.test_cfg, 'rcnn', config.model.test_cfg).score_thr = 0.0
        return config

    return copied


@pytest.mark.parametrize(('name', 'metrics'), [('detect', ('bbox', 'segm')), ('detect_boxes', ('bbox',))])
def test_an_epoch_and_its_validation(copied, tmp_path, monkeypatch, name, metrics):
    monkeypatch.chdir(tmp_path)
    runner = ScheduleRunner.from_cfg(copied(name))
    before = runner.model.backbone.stages[0].patch_embed.projection.weight.clone()
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert all(f'val/coco/{metric}_mAP' in scalars for metric in metrics)
    assert not torch.equal(before, runner.model.backbone.stages[0].patch_embed.projection.weight)
    assert all(weight.isfinite().all() for weight in runner.model.state_dict().values())
    tested = copied(name)
    tested.load_from = str(tmp_path / 'work' / 'epoch_1.pth')  # as `mim test` does
    assert f'coco/{metrics[-1]}_mAP' in ScheduleRunner.from_cfg(tested).test()


@pytest.mark.parametrize('name', ['detect', 'detect_boxes'])
def test_begins_with_a_pretrained_backbone(copied, tmp_path, name):
    pretraining = MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            backbone=dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=96),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=32, depth=1, num_heads=2),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=pretraining.state_dict()), checkpoint)
    runner = ScheduleRunner.from_cfg(copied(name, checkpoint=str(checkpoint), frozen_stages=1))
    runner._init_model_weights()
    weights = runner.model.backbone.state_dict()
    for parameter, value in pretraining.backbone.state_dict().items():
        if 'pos_embed' not in parameter:
            assert torch.equal(weights[parameter], value), parameter
    assert not any(parameter.requires_grad for parameter in runner.model.backbone.stages[0].parameters())


@pytest.mark.parametrize('name', ['detect', 'detect_boxes'])
def test_heads_follow_classes_and_arch(copied, name):
    for arch, widths in (('base', [256, 384, 768, 768]), ('tiny', [48, 96, 192, 192])):
        config = copied(name, classes=('cat', 'dog', 'bird'), arch=arch)
        assert config.model.neck.in_channels == widths
        heads = config.model.get('roi_head', config.model)
        found = [part.num_classes for key, part in heads.items() if isinstance(part, dict) and 'num_classes' in part]
        assert set(found) == {3}
        with torch.device('meta'):
            MODELS.build(config.model)


def test_a_wrong_class_stops_before_training(copied):
    runner = ScheduleRunner.from_cfg(copied('detect', classes=('cat', 'dogg')))
    with pytest.raises(ValueError, match=r"1\. `classes` has 'dogg', and .* \(did you mean 'dog'\?\)"):
        runner.train()
    assert runner.iter == 0


def test_goes_not_on_from_pretraining(copied, tmp_path):
    """mmengine speaks of a different number of parameter groups."""
    pretraining = dict(model=torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(pretraining['model'].parameters())
    config = copied('detect')
    config.resume = True
    (tmp_path / 'work').mkdir()
    torch.save(
        dict(
            state_dict=pretraining['model'].state_dict(),
            optimizer=optimizer.state_dict(),
            param_schedulers=[],
            meta=dict(epoch=1, iter=2, cfg=''),
            message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        ),
        tmp_path / 'work' / 'epoch_1.pth',
    )
    with pytest.raises(ValueError, match=r'epoch_1\.pth is of another model or optimiser .* to begin with its weights'):
        ScheduleRunner.from_cfg(config).train()


@pytest.mark.parametrize('name', ['detect', 'detect_boxes'])
def test_opens_with_what_one_changes(copied, name):
    screen = (ROOT / 'configs' / 'own_images' / f'{name}.py').read_text().splitlines()[:20]
    for setting in copied(name).settings:
        (line,) = [line for line in screen if line.startswith(f'{setting} = ')]
        assert '  # ' in line or setting in ('data_root', 'val_images', 'val_ann_file', 'max_epochs')

"""The backbone in mmaction2's Recognizer3D, against our own classifier of clips."""

import cv2
import numpy as np
import pytest
import torch
from helpers import load
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from mmconvmae.registry import MODELS

NAME = 'recognizer3d_videoconvvit-base-p16_64xb8-amp-coslr-100e_k400'
BACKBONE = dict(arch='tiny', img_size=32, num_frames=4)


def test_backbone_gives_one_map_of_the_mean():
    torch.manual_seed(0)
    ours = MODELS.build(dict(type='mmconvmae.VideoConvViT', out_type='avg_featmap', **BACKBONE)).eval()
    theirs = MODELS.build(dict(type='mmconvmae.RecognizerConvViT', **BACKBONE)).eval()
    theirs.load_state_dict(ours.state_dict())
    clips = torch.randn(2, 3, 4, 32, 48)
    with torch.no_grad():
        features = theirs(clips)
        torch.testing.assert_close(features[..., 0, 0, 0], ours(clips)[0])
    assert features.shape == (2, 192, 1, 1, 1)


@pytest.fixture
def config():
    config = load(NAME)
    config.model.backbone.update(init_cfg=None, drop_path_rate=0.0, **BACKBONE)
    config.model.cls_head.update(in_channels=192, num_classes=3, topk=(1,))
    for augment in config.model.data_preprocessor.blending.augments:
        augment.num_classes = 3
    yield config
    init_default_scope('mmpretrain')


def test_predicts_what_our_classifier_does(config):
    torch.manual_seed(0)
    recognizer = MODELS.build(config.model).eval()
    state_dict = {f'backbone.{name}': value for name, value in recognizer.backbone.state_dict().items()}
    for name, value in recognizer.cls_head.fc_cls.named_parameters():
        value.data.normal_()
        state_dict[f'head.fc.{name}'] = value
    views = torch.randint(0, 256, (2, 6, 3, 4, 32, 32), dtype=torch.uint8)  # red first

    from mmaction.structures import ActionDataSample

    batch = dict(inputs=list(views), data_samples=[ActionDataSample().set_gt_label(i) for i in range(2)])
    with torch.no_grad():
        found = [
            recognizer.test_step(dict(inputs=[clips], data_samples=[sample]))[0].pred_score
            for clips, sample in zip(batch['inputs'], batch['data_samples'])
        ]

    init_default_scope('mmpretrain')
    classifier = MODELS.build(
        dict(
            type='mmconvmae.VideoClassifier',
            backbone=dict(type='mmconvmae.VideoConvViT', out_type='avg_featmap', **BACKBONE),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=192),
            data_preprocessor=dict(
                type='mmconvmae.ClipDataPreprocessor',
                mean=config.model.data_preprocessor.mean,
                std=config.model.data_preprocessor.std,
                to_rgb=False,
            ),
        )
    ).eval()
    classifier.load_state_dict(state_dict)
    with torch.no_grad():
        expected = classifier.test_step(dict(inputs=views))
    torch.testing.assert_close(torch.stack(found), torch.stack([sample.pred_score for sample in expected]))


def test_a_step_from_files(config, tmp_path):
    for i in range(2):
        writer = cv2.VideoWriter(str(tmp_path / f'{i}.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (60, 40))
        for _ in range(9):
            writer.write(np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8))
        writer.release()
    (tmp_path / 'list.txt').write_text('0.avi 0\n1.avi 2\n')

    from mmaction.registry import DATASETS

    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'SampleFrames':
            step.update(clip_len=4, frame_interval=2)
        if step.type == 'Resize' and not step.get('keep_ratio', True):
            step.scale = (32, 32)
    assert Compose(config.val_dataloader.dataset.pipeline)
    dataset = dict(
        config.train_dataloader.dataset, ann_file=str(tmp_path / 'list.txt'), data_prefix=dict(video=str(tmp_path))
    )
    dataset = DATASETS.build(dataset)
    torch.manual_seed(0)
    recognizer = MODELS.build(config.model).train()
    batch = recognizer.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
    loss = recognizer(**batch, mode='loss')['loss_cls']
    loss.backward()
    assert loss.isfinite() and recognizer.backbone.stages[0].patch_embed.projection.weight.grad.abs().sum() > 0


def test_its_layers_have_rates_of_their_own(config):
    from mmengine.optim import build_optim_wrapper

    wrapper = build_optim_wrapper(MODELS.build(config.model), config.optim_wrapper)
    rates = {round(group['lr'] / config.optim_wrapper.optimizer.lr, 6) for group in wrapper.optimizer.param_groups}
    assert 1 in rates and len(rates) > 5

# Linear probe on the training digits.
#     mim train mmpretrain configs/convmae_digits/convvit-tiny-p16_1xb64-linear-coslr-20e_digits-64px.py
_base_ = [
    '../_base_/models/convvit-base-p16_cls.py',
    '../_base_/datasets/digits_bs64.py',
    '../_base_/schedules/imagenet_bs4096_lars_coslr_linear.py',
    '../_base_/convmae_runtime.py',
]

model = dict(
    backbone=dict(
        arch='tiny',
        img_size=64,
        frozen_stages=3,
        init_cfg=dict(checkpoint='work_dirs/convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px/epoch_60.pth'),
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=192),
    head=dict(num_classes=10, in_channels=192, topk=1, init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01)),
)

optim_wrapper = dict(optimizer=dict(lr=15.0))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20, val_interval=5)

default_hooks = dict(checkpoint=dict(save_best='auto'))
resume = False  # `--resume` goes on from the last checkpoint; a test must not

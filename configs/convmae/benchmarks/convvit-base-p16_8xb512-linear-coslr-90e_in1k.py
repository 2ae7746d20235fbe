# Table 1: linear probe of ConvMAE, 70.9.
#     mim train mmpretrain \
#         configs/convmae/benchmarks/convvit-base-p16_8xb512-linear-coslr-90e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/models/convvit-base-p16_cls.py',
    '../../_base_/datasets/imagenet_bs128_convvit.py',
    '../../_base_/schedules/imagenet_bs4096_lars_coslr_linear.py',
    '../../_base_/convmae_runtime.py',
]

model = dict(
    backbone=dict(frozen_stages=3),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01)),
)
train_dataloader = dict(batch_size=512)

default_hooks = dict(checkpoint=dict(save_best='auto'))
resume = False  # `--resume` goes on from the last checkpoint; a test must not

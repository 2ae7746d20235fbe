# A few minutes on two CPU cores, for tools/demo.sh.
_base_ = './convmae_convvit-base-p16_8xb256-amp-coslr-200e_image-folder.py'

model = dict(
    backbone=dict(arch='tiny', img_size=128),
    neck=dict(embed_dims=128, depth=2, num_heads=4),
)

train_pipeline = _base_.train_pipeline
train_pipeline[0].update(scale=128, crop_ratio_range=(0.4, 1.0))
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(data_root='data/demo/train/', pipeline=train_pipeline),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8)

default_hooks = dict(logger=dict(interval=16))
# every demonstration begins anew
resume = False

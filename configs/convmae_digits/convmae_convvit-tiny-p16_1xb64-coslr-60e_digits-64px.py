# Pretraining on the training digits, without their labels.
#     mim train mmpretrain configs/convmae_digits/convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px.py
_base_ = [
    '../_base_/models/convmae_convvit-tiny-p16.py',
    '../_base_/datasets/image_folder_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

model = dict(backbone=dict(img_size=64))

data_preprocessor = dict(mean=[78.0] * 3, std=[96.0] * 3)
# Not flipped: that would make another character.
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64, num_workers=2, dataset=dict(data_root='data/digits/train/', pipeline=train_pipeline)
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60)
default_hooks = dict(logger=dict(interval=16))
# every demonstration begins anew
resume = False

# Pretraining on the training digits, without their labels.
_base_ = '../convmae/convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px.py'

model = dict(backbone=dict(img_size=64))

data_preprocessor = dict(mean=[78.0] * 3, std=[96.0] * 3)
# Not flipped: that would make another character.
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(data_root='data/digits/train/', pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=60)

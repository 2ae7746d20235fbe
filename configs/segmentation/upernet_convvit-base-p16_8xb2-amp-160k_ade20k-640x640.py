_base_ = './upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

crop_size = (640, 640)
scale = (2560, 640)

data_preprocessor = dict(size=crop_size, test_cfg=dict(size=crop_size))
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(img_size=crop_size),
    test_cfg=dict(crop_size=crop_size, stride=(426, 426)),
)

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=scale),
    dict(_base_.train_pipeline[3], crop_size=crop_size),
    *_base_.train_pipeline[4:],
]
test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], scale=scale), *_base_.test_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

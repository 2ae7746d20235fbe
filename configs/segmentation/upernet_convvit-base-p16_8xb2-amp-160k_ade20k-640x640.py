# UperNet on ConvMAE-B with images of 640 x 640; not in the paper.
#     mim train mmseg \
#         configs/segmentation/upernet_convvit-base-p16_8xb2-amp-160k_ade20k-640x640.py --launcher pytorch --gpus 8
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
    dict(type='mmconvmae.SeedSample'),
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

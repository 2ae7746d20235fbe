# Table 2: Mask R-CNN on ConvMAE-B, 25 epochs, 53.2 box AP and 47.1 mask AP.
#     mim train mmdetection \
#         configs/detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py --launcher pytorch --gpus 8
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmconvmae'])
runner_type = 'mmconvmae.ScheduleRunner'

# Training and test images are fitted into a square of this edge, in pixels, and padded to it.
image_size = 1024

norm_cfg = dict(type='SyncBN')
model = dict(
    data_preprocessor=dict(pad_size_divisor=image_size),
    backbone=dict(
        _delete_=True,
        type='mmconvmae.ConvViT',
        arch='base',
        img_size=image_size,
        window_size=16,
        global_attn_indexes=(0, 3, 6, 10),
        rel_pos='shared',
        fourth_level='max_pool',
        out_indices=(0, 1, 2, 3),
        out_type='featmap',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[256, 384, 768, 768], norm_cfg=norm_cfg),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

# Large-scale jitter
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(image_size, image_size), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(image_size, image_size),
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    # They start anew with each epoch, so that EpochSeedHook decides what they draw, also in a run that goes on.
    persistent_workers=False,
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# In float16, because mmcv's RoIAlign knows no bfloat16.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='float16',
    optimizer=dict(type='AdamW', lr=8e-5, betas=(0.9, 0.999), weight_decay=0.1),
    # The released recipe keeps the position embedding as it was pretrained.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={'pos_embed': dict(lr_mult=0.0, decay_mult=0.0), 'rel_pos': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=461),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=25, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0, diff_rank_seed=True)
custom_hooks = [dict(type='mmconvmae.EpochSeedHook'), dict(type='mmconvmae.FiniteCheckHook')]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'))

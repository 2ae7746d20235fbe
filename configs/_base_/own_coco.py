# What detectors on own annotations share, whatever the settings: detect.py and detect_boxes.py in configs/own_images.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmconvmae'])
runner_type = 'mmconvmae.ScheduleRunner'
# Annotations, images and heads are compared before anything is trained.
checks = [dict(type='mmconvmae.CocoCheck')]

train_dataloader = dict(
    num_workers=2,
    # They start anew with each epoch, so that EpochSeedHook decides what they draw, also in a run that goes on.
    persistent_workers=False,
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(type='CocoDataset', filter_cfg=dict(filter_empty_gt=True, min_size=32)),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator

# In float16 on a GPU, because mmcv's RoIAlign and focal loss know no bfloat16.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='float16',
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0, diff_rank_seed=True)
custom_hooks = [dict(type='mmconvmae.EpochSeedHook'), dict(type='mmconvmae.FiniteCheckHook')]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/bbox_mAP'))

# A detector with masks, Mask R-CNN, on your own images and annotations, on one GPU or none. Copy this file, change what
# follows, and run
#     mim train mmdetection my_detect.py        (mim train mmdet with the original OpenMMLab libraries)
data_root = 'data/mine/'
train_images = 'train/'  # folders and annotations lie in data_root
train_ann_file = 'annotations/train.json'  # COCO's format, with outlines; without outlines see detect_boxes.py
val_images = 'val/'
val_ann_file = 'annotations/val.json'
classes = ('cat', 'dog')  # names as in the annotations, in their order; one class is ('cat',)
arch = 'small'  # tiny, small, base, large or huge
checkpoint = None  # weights to begin with: 'work_dirs/my_pretrain/epoch_200.pth', or the authors' converted: 'ours.pth'
image_size = 640  # images are fitted into a square of this edge, in pixels, a multiple of 32
batch_size = 4  # on one GPU; the learning rate follows it. docs/own_annotations.md has a table of memory
max_epochs = 36
base_lr = 2e-4  # for 16 images a step
layer_decay = 0.8  # each layer of the backbone learns at this share of the rate of the next; 1: all learn alike
drop_path = 0.1  # 0.2 and more for larger models or few images
frozen_stages = 0  # 1 or 2 keep the first stages as they were pretrained

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only: see `settings` below.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmconvmae'])
runner_type = 'mmconvmae.ScheduleRunner'

settings = dict(
    data_root=data_root,
    train_images=train_images,
    train_ann_file=train_ann_file,
    val_images=val_images,
    val_ann_file=val_ann_file,
    classes=classes,
    arch=arch,
    checkpoint=checkpoint,
    image_size=image_size,
    batch_size=batch_size,
    max_epochs=max_epochs,
    base_lr=base_lr,
    layer_decay=layer_decay,
    drop_path=drop_path,
    frozen_stages=frozen_stages,
)
# Annotations, images and heads are compared before anything is trained.
checks = [dict(type='mmconvmae.CocoCheck')]

parse_arch = __import__('mmconvmae.models.backbones.convvit_arch', fromlist=['parse_arch']).parse_arch
widths = list(parse_arch(arch)['embed_dims'])
del parse_arch
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='mmconvmae.ConvViT',
        arch=arch,
        img_size=image_size,
        fourth_level='max_pool',
        out_indices=(0, 1, 2, 3),
        out_type='featmap',
        drop_path_rate=drop_path,
        frozen_stages=frozen_stages,
        init_cfg=checkpoint and dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(in_channels=[*widths, widths[-1]]),
    roi_head=dict(bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))),
)

# Smaller and larger by half. (The paper's recipe, configs/detection, has 0.1 to 2 at 1024 pixels and 25 to 100 epochs.)
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(image_size, image_size), ratio_range=(0.5, 1.5), keep_ratio=True),
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
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file=train_ann_file,
        data_prefix=dict(img=train_images),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_images),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + val_ann_file, metric=['bbox', 'segm'])
test_evaluator = val_evaluator

# In float16 on a GPU, because mmcv's RoIAlign knows no bfloat16.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='float16',
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=layer_decay, norm_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0)
custom_hooks = [dict(type='mmconvmae.FiniteCheckHook')]
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/bbox_mAP')
)
# `--resume` goes on from the last checkpoint in the work directory; a test must not.
resume = False

# A class for each pixel, from images and masks of the same names, on one GPU or none. Copy this file, change what
# follows, and run
#     mim train mmseg my_segment.py
data_root = 'data/camvid/'  # what is named below lies in it
train_images = 'images/training'  # a folder, with sub-folders or without
train_masks = 'annotations/training'  # masks of the same names: one channel, or a palette, with the number of a class
val_images = 'images/validation'
val_masks = 'annotations/validation'
image_suffix = '.jpg'  # of all images
mask_suffix = '.png'  # of all masks: 'a.jpg' and 'a.png', or '_mask.png' for 'a_mask.png'
classes = ('sky', 'building', 'road', 'tree', 'car')  # in the order of their numbers; two or more, 'background' too
ignore_zero = False  # True: 0 in a mask is no class, and 1 the first. False: 0 is the first. 255 is never a class
arch = 'small'  # tiny, small, base, large or huge
image_size = (512, 512)  # height and width of the crops that the model sees, multiples of 16
short_edge = 512  # images are resized to it first; in training to 0.5 to 2 times as much
in_channels = 3  # 1: grey, 3: colour, 4 or more: as in the files
mean = [123.675, 116.28, 103.53]  # of each channel, in the units of the files: those of pretraining, or as
std = [58.395, 57.12, 57.375]  # `scan_images.py FOLDER` prints them
full_scale = None  # 255: scales 8 and 16 bits to 0 ... 255
checkpoint = None  # weights to begin with: 'work_dirs/my_pretrain/epoch_200.pth'. None: random ones
frozen_stages = 0  # 1 or 2: so many stages stay as they were pretrained, for some dozens of images; 3: all
layer_decay = 1.0  # learning rate of each layer as a share of that of the next; 0.75 for base, as in the paper
drop_path = 0.1  # 0.0 for tiny, 0.2 and more for large
batch_size = 8  # on one GPU; the learning rate follows it
max_iters = 20000  # steps of so many crops
base_lr = 1e-4  # for 8 crops a step

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = __import__('mmseg').__path__[0] + '/.mim/configs/_base_/default_runtime.py'

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmconvmae.models.backbones.convvit_arch import parse_arch

custom_imports = dict(imports=['mmconvmae'])
runner_type = 'mmconvmae.ScheduleRunner'

checks = [dict(type='mmconvmae.SegmentationCheck')]  # of all this and the data, before training

widths = parse_arch(arch)['embed_dims']
# A test image that is smaller than the window that slides over it is padded to it.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=mean if in_channels in (1, 3) else None,  # it takes no other number, and `normalize` below does
    std=std if in_channels in (1, 3) else None,
    bgr_to_rgb=in_channels == 3,
    pad_val=0,
    seg_pad_val=255,
    size=image_size,
    test_cfg=dict(size=image_size),
)
# The head of SegFormer is light and has no batch statistics of single positions; configs/segmentation has the paper's.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='mmconvmae.ConvViT',
        arch=arch,
        img_size=image_size,
        in_channels=in_channels,
        out_type='featmap',
        out_indices=(0, 1, 2, 3),
        fourth_level='max_pool',
        drop_path_rate=drop_path,
        frozen_stages=frozen_stages,
        init_cfg=checkpoint and dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[*widths, widths[-1]],
        in_index=[0, 1, 2, 3],
        channels=128 if arch == 'tiny' else 256,
        dropout_ratio=0.1,
        num_classes=len(classes),
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),  # the mean over pixels that count
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=image_size, stride=[size * 2 // 3 for size in image_size]),
)

# Only what mmseg's own loader reads can be given to MMSegInferencer.
colours = in_channels == 3 and full_scale is None
load = dict(type='mmconvmae.LoadWholeImage', in_channels=in_channels, full_scale=full_scale, to_float32=not colours)
normalize = [] if in_channels in (1, 3) else [dict(type='Normalize', mean=mean, std=std, to_rgb=False)]
scale = (4 * short_edge, short_edge)  # the longer edge becomes at most the first, the shorter at most the second
train_pipeline = [
    dict(type='mmconvmae.SeedSample'),  # with the sampler and the hook below: a run that goes on has the same crops
    load,
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    *([dict(type='PhotoMetricDistortion')] if colours else []),
    *normalize,
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile') if colours else load,
    dict(type='Resize', scale=scale, keep_ratio=True),
    *normalize,
    dict(type='LoadAnnotations'),  # after resizing, for predictions are compared at the size of the file
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    img_suffix=image_suffix,
    seg_map_suffix=mask_suffix,
    metainfo=dict(classes=classes),
    reduce_zero_label=ignore_zero,
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='mmconvmae.SeededInfiniteSampler', shuffle=True),
    dataset=dict(dataset, data_prefix=dict(img_path=train_images, seg_map_path=train_masks), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dataset, data_prefix=dict(img_path=val_images, seg_map_path=val_masks), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay_rate=layer_decay if checkpoint else 1.0,  # lower layers would not learn from random weights
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(enable=True, base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=0),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max(1, max_iters // 10))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
randomness = dict(seed=0, diff_rank_seed=True)
custom_hooks = [dict(type='mmconvmae.IterSeedHook'), dict(type='mmconvmae.FiniteCheckHook')]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=max(1, max_iters // 10), max_keep_ckpts=1, save_best='mIoU'
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)

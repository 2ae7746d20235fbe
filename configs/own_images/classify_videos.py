# Classes of videos, from a folder for each class, on one GPU or none. Copy this file, change what follows, and run
#     mim train mmpretrain my_classify_videos.py
data_root = 'data/videos/'  # what is named below lies in it
train_videos = 'train'  # a folder with a folder for each class, or the videos of train_list
val_videos = 'val'  # the same, for validation
train_list = ''  # 'train.txt': lines of a path in train_videos and a number of its class, from 0; '': folders
val_list = ''
classes = ('falling', 'jumping', 'running')  # the folders, in alphabetical order; two or more
arch = 'small'  # tiny, small, base, large or huge
image_size = 224  # height and width of what the model sees, a multiple of 16
num_frames = 16  # of a clip, an even number
frame_interval = 4  # frames from one of a clip to the next; None: one from each of num_frames parts of the video
flip = True  # False where left and right are different classes
views = 2  # clips of each video in a test, with three crops each; their probabilities are averaged
mean = [123.675, 116.28, 103.53]  # of red, green and blue: those of pretraining
std = [58.395, 57.12, 57.375]
decoder = 'opencv'  # 'av' or 'decord', if installed
checkpoint = None  # weights to begin with: 'work_dirs/my_pretrain_videos/epoch_800.pth'. None: random ones
frozen_stages = 0  # 1 or 2: so many stages stay as they were pretrained, for some dozens of videos; 3: all
layer_decay = 0.75  # learning rate of each layer as a share of that of the next; 1.0 where weights are random
drop_path = 0.1  # 0.0 for tiny, 0.2 and more for large
strong_augmentation = False  # True: RandAugment, Mixup and CutMix, for 10 000 videos or more and many epochs
batch_size = 8  # clips on one GPU; the learning rate follows it
max_epochs = 50
base_lr = 1e-3  # for 256 clips a step

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = __import__('mmconvmae').__path__[0] + '/.mim/configs/_base_/convmae_runtime.py'

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmconvmae import datasets
from mmconvmae.models.backbones.convvit_arch import parse_arch

checks = [dict(type='mmconvmae.VideoClassificationCheck')]  # of all this and the data, before training

widths = parse_arch(arch)['embed_dims']
model = dict(
    type='mmconvmae.VideoClassifier',
    backbone=dict(
        type='mmconvmae.VideoConvViT',
        arch=arch,
        img_size=image_size,
        num_frames=num_frames,
        out_type='avg_featmap',
        drop_path_rate=drop_path,
        frozen_stages=frozen_stages,
        init_cfg=checkpoint and dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=len(classes),
        in_channels=widths[-1],
        topk=(1,),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    # ClipCutMix puts the same box in all frames.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='ClipCutMix', alpha=1.0)])
    if strong_augmentation
    else None,
)
data_preprocessor = dict(type='mmconvmae.ClipDataPreprocessor', num_classes=len(classes), mean=mean, std=std)

# All frames of a clip have the same crop, flip and colours.
augmentation = [
    dict(type='mmconvmae.LoadRandomResizedCrop', scale=image_size, crop_ratio_range=(0.25, 1.0)),
    dict(type='RandomFlip', prob=0.5 if flip else 0.0),
]
if strong_augmentation:
    augmentation.append(
        dict(
            type='RandAugment',
            policies='timm_increasing',
            num_policies=4,
            total_level=10,
            magnitude_level=7,
            magnitude_std=0.5,
            hparams=dict(pad_val=[round(value) for value in mean[::-1]], interpolation='bicubic'),
        )
    )
if frame_interval:
    dense = dict(num_frames=num_frames, frame_interval=frame_interval)
    train_sampler = dict(type='mmconvmae.DenseClip', **dense)
    test_sampler = dict(type='mmconvmae.DenseViews', num_clips=views, **dense)
else:
    train_sampler = dict(type='mmconvmae.SegmentClip', num_frames=num_frames)
    test_sampler = dict(type='mmconvmae.SegmentViews', num_clips=views, num_frames=num_frames)
frame_by_frame = dict(type='TransformBroadcaster', mapping=dict(img='imgs'), auto_remap=True, share_random_params=True)
train_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=train_sampler, decoder=decoder),
    dict(frame_by_frame, transforms=augmentation),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=test_sampler, decoder=decoder),
    dict(frame_by_frame, transforms=[dict(type='ResizeEdge', scale=image_size, edge='short')]),
    dict(type='mmconvmae.ThreeCrop'),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
dataset = dict(
    type='CustomDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    extensions=datasets.VIDEO_SUFFIXES,
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=False,  # they start anew with each epoch, so that EpochSeedHook decides what they draw
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, data_prefix=train_videos, ann_file=train_list, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,  # videos may differ in size, and each has several views
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, data_prefix=val_videos, ann_file=val_list, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5) if len(classes) > 5 else (1,)),
    dict(type='SingleLabelMetric', items=('precision', 'recall', 'f1-score'), num_classes=len(classes)),
]
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    constructor='LearningRateDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay_rate=layer_decay if checkpoint else 1.0,  # lower layers would not learn from random weights
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(enable=True, base_batch_size=256)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min_ratio=1e-3, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(max_keep_ckpts=1, save_best='accuracy/top1', rule='greater'),
)
resume = False  # `--resume` goes on from the last checkpoint; a test must not

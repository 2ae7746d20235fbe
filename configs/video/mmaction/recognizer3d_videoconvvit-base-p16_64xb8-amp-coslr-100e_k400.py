# Figure 3 in mmaction2: VideoConvMAE finetuned on Kinetics-400 as its Recognizer3D, with its data, views and metrics.
#     mim train mmaction2 \
#         configs/video/mmaction/recognizer3d_videoconvvit-base-p16_64xb8-amp-coslr-100e_k400.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = ['../../_base_/schedules/clips_bs512_adamw_coslr_finetune.py', 'mmaction::_base_/default_runtime.py']
custom_imports = dict(imports=['mmconvmae'], allow_failed_imports=False)
runner_type = 'mmconvmae.ScheduleRunner'

num_classes = 400
pretraining = 'videoconvmae_videoconvvit-base-p16_64xb32-amp-coslr-800e_k400'
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
        blending=dict(
            type='RandomBatchAugment',
            augments=[
                dict(type='MixupBlending', alpha=0.8, num_classes=num_classes),
                dict(type='CutmixBlending', alpha=1.0, num_classes=num_classes),
            ],
        ),
    ),
    backbone=dict(
        type='mmconvmae.RecognizerConvViT',
        arch='base',
        img_size=224,
        num_frames=16,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=f'work_dirs/{pretraining}/epoch_800.pth', prefix='backbone.'),
    ),
    cls_head=dict(
        type='I3DHead',
        num_classes=num_classes,
        in_channels=768,
        dropout_ratio=0,
        init_std=2e-5,
        label_smooth_eps=0.1,
        average_clips='prob',
    ),
    # One view after the other, which takes the least memory.
    test_cfg=dict(max_testing_views=1),
)

train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=5, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 224)),
    dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
dataset = dict(type='VideoDataset', data_prefix=dict(video='data/kinetics400'))
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(dataset, ann_file='data/kinetics400/train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dataset, ann_file='data/kinetics400/val.txt', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator

optim_wrapper = dict(constructor='mmconvmae.LayerDecayOptimWrapperConstructor')
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
randomness = dict(seed=0, diff_rank_seed=True)

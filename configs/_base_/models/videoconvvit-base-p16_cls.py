model = dict(
    type='mmconvmae.VideoClassifier',
    backbone=dict(
        type='mmconvmae.VideoConvViT',
        arch='base',
        img_size=224,
        num_frames=16,
        out_type='avg_featmap',
        drop_path_rate=0.1,
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=400,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    # ClipCutMix puts the same box in all frames.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='ClipCutMix', alpha=1.0)]),
)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmconvmae.ConvViT',
        arch='base',
        img_size=224,
        out_type='avg_featmap',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=768),
)

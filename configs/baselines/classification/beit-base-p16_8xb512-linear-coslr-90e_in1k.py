_base_ = './vit-base-p16_8xb512-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(
        type='BEiTViT',
        out_type='avg_featmap',
        init_cfg=dict(checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)

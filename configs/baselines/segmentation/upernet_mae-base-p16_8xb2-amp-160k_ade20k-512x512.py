_base_ = './upernet_beit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

# BEiT's backbone, because MAE's segmentors learn relative positions too: from zero, and here from noise of 0.02.
model = dict(
    backbone=dict(
        bias=True,
        use_abs_pos_emb=True,
        layer_scale_init_value=1.0,
        init_cfg=dict(checkpoint='work_dirs/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)

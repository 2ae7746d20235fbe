# Table 3: MAE, ViT-B, in the pipeline of ours.
#     mim train mmseg \
#         configs/baselines/segmentation/upernet_mae-base-p16_8xb2-amp-160k_ade20k-512x512.py \
#         --launcher pytorch --gpus 8
_base_ = './upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

# BEiT's backbone, because MAE's segmentors learn relative positions too: from zero, and here from noise of 0.02.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.BEiTViT',
        arch='base',
        img_size=_base_.crop_size,
        bias=True,
        use_abs_pos_emb=True,
        layer_scale_init_value=1.0,
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
)

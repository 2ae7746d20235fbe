# DeiT. DINO's and MoCo v3's are the same model: --cfg-options model.backbone.init_cfg.checkpoint=THEIRS.pth
#     mim train mmseg \
#         configs/baselines/segmentation/upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512.py \
#         --launcher pytorch --gpus 8
_base_ = '../../segmentation/upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=_base_.crop_size,
        final_norm=False,
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/deit-base_pt-16xb64_in1k_20220216-db63c16c.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=768),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
)

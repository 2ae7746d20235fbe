# PeCo's is the same model: --cfg-options model.backbone.init_cfg.checkpoint=ITS.pth
# CAE's has position embeddings too: model.backbone.use_abs_pos_emb=True
#     mim train mmseg \
#         configs/baselines/segmentation/upernet_beit-base-p16_8xb2-amp-160k_ade20k-512x512.py \
#         --launcher pytorch --gpus 8
_base_ = './upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmconvmae.ResizableBEiT',
        arch='base',
        img_size=_base_.crop_size,
        out_indices=(3, 5, 7, 11),
        out_type='featmap',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
)

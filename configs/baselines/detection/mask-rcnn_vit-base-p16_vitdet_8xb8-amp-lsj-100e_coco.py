# Table 2: ViTDet, ViT-B.
#     mim train mmdetection \
#         configs/baselines/detection/mask-rcnn_vit-base-p16_vitdet_8xb8-amp-lsj-100e_coco.py \
#         --launcher pytorch --gpus 8
_base_ = '../../detection/mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ViTSAM',
        arch='base',
        img_size=_base_.image_size,
        window_size=14,
        out_channels=0,
        drop_path_rate=0.1,
        # MAE's, by tools/model_converters/vit_to_vit_sam.py.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k/vit_sam.pth',
            prefix='backbone.',
        ),
    ),
)

# With 64 images in a step, the iterations of the base are 100 epochs.
train_dataloader = dict(batch_size=8)
# The position embedding is in the first layer.
optim_wrapper = dict(
    paramwise_cfg=dict(layer_decay_rate=0.7, custom_keys={'pos_embed': dict(_delete_=True, decay_mult=0.0)})
)
auto_scale_lr = dict(base_batch_size=64)

# Table 2: Swin-B, pretrained with labels, in the pipeline of ours.
#     mim train mmdetection \
#         configs/baselines/detection/mask-rcnn_swin-base_fpn_8xb4-amp-lsj-36e_coco.py --launcher pytorch --gpus 8
_base_ = '../../detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
        drop_path_rate=0.3,
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
            'swin_base_patch4_window7_224.pth',
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)}))
train_cfg = dict(max_epochs=36)

# Table 3: Swin-B in the pipeline of ours.
#     mim train mmseg \
#         configs/baselines/segmentation/upernet_swin-base_8xb2-amp-160k_ade20k-512x512.py --launcher pytorch --gpus 8
_base_ = '../../segmentation/upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/'
            'swin_base_patch4_window7_224_20220317-e9b98025.pth',
        ),
    ),
    # Narrower than the others' in Swin's own segmentor, whose 121 M parameters the paper gives.
    decode_head=dict(in_channels=[128, 256, 512, 1024], channels=512),
    auxiliary_head=dict(in_channels=512),
)

# mmseg's Swin knows no layers for the learning rate to decay over.
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(lr=6e-5),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)},
    ),
)

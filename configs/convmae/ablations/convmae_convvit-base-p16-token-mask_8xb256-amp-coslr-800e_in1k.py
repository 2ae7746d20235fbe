# Table 5: tokens of stage 1 are masked one by one, so that nearly every block has a visible one and stage 3 sees all.
#     mim train mmpretrain \
#         configs/convmae/ablations/convmae_convvit-base-p16-token-mask_8xb256-amp-coslr-800e_in1k.py \
#         --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/models/convmae_convvit-base-p16-single-scale.py',
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

model = dict(mask_generator=dict(cells_per_edge=4), backbone=dict(conv_mode='masked'))
train_cfg = dict(max_epochs=800)

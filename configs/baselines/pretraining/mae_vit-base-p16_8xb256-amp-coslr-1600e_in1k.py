# Table 1: MAE, by the recipe of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    'mmpretrain::_base_/models/mae_vit-base-p16.py',
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

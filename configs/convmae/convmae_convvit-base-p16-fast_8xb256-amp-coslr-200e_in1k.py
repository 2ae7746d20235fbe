# Cheaper than a step of MAE ViT-B. Not in the paper; docs/performance.md has the price.
#     mim train mmpretrain \
#         configs/convmae/convmae_convvit-base-p16-fast_8xb256-amp-coslr-200e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16-fast.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)

# Tables 4 and 6.
#     mim train mmpretrain \
#         configs/convmae/ablations/convmae_convvit-base-p16-single-scale_8xb256-amp-coslr-200e_in1k.py \
#         --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/models/convmae_convvit-base-p16-single-scale.py',
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)

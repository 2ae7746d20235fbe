# ConvMAE, small, 200 epochs; sizes are those of the released checkpoints.
#     mim train mmpretrain \
#         configs/convmae/convmae_convvit-small-p16_8xb256-amp-coslr-200e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

model = dict(backbone=dict(arch='small'))
train_cfg = dict(max_epochs=200)

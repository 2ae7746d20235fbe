# Table 6: ConvMAE-B with the multi-scale decoder, 200 epochs.
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)

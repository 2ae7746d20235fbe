# Table 5: convolutions see what is masked.
_base_ = [
    '../../_base_/models/convmae_convvit-base-p16-single-scale.py',
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

model = dict(backbone=dict(conv_mode='unmasked'))
train_cfg = dict(max_epochs=800)

# Table 5: convolutions see what is masked.
_base_ = './convmae_convvit-base-p16-single-scale_8xb256-amp-coslr-800e_in1k.py'

model = dict(backbone=dict(conv_mode='unmasked'))

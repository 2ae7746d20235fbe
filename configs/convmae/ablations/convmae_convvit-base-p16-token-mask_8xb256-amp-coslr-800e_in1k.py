# Table 5: tokens of stage 1 are masked one by one, so that nearly every block has a visible one and stage 3 sees all.
_base_ = './convmae_convvit-base-p16-single-scale_8xb256-amp-coslr-800e_in1k.py'

model = dict(mask_generator=dict(cells_per_edge=4), backbone=dict(conv_mode='masked'))

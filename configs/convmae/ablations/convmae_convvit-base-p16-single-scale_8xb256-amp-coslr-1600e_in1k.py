# Tables 4 and 6: the decoder sees stage 3 alone.
_base_ = '../convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(neck=dict(multi_scale=False))

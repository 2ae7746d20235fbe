_base_ = './upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

# The 153 M parameters that the paper gives.
model = dict(backbone=dict(fourth_level='max_pool'))

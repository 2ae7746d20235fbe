_base_ = './convmae_convvit-base-p16_8xb256-amp-coslr-200e_in1k.py'

model = dict(backbone=dict(arch='huge'))

# Cheaper than a step of MAE ViT-B: a decoder of half the depth, which sees the visible patches and half of the others.
# Not in the paper; docs/performance.md has the price.
_base_ = './convmae_convvit-base-p16_8xb256-amp-coslr-200e_in1k.py'

model = dict(neck=dict(depth=4, predict_ratio=0.5))

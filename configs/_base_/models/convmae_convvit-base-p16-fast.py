# A decoder of half the depth, which sees the visible patches and half of the others.
_base_ = './convmae_convvit-base-p16.py'

model = dict(neck=dict(depth=4, predict_ratio=0.5))

# The decoder sees stage 3 alone: tables 4 to 6 of the paper.
_base_ = './convmae_convvit-base-p16.py'

model = dict(neck=dict(multi_scale=False))

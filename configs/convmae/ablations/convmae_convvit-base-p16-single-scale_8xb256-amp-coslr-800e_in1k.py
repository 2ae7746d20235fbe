_base_ = './convmae_convvit-base-p16-single-scale_8xb256-amp-coslr-1600e_in1k.py'

train_cfg = dict(max_epochs=800)

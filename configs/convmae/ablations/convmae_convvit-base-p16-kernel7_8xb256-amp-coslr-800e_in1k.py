# Table 5; what starts from it needs the same: --cfg-options model.backbone.kernel_size=7
_base_ = './convmae_convvit-base-p16-single-scale_8xb256-amp-coslr-800e_in1k.py'

model = dict(backbone=dict(kernel_size=7))

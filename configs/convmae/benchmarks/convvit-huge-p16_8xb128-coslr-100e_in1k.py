# Finetuning of huge by the recipe of base.
#     mim train mmpretrain \
#         configs/convmae/benchmarks/convvit-huge-p16_8xb128-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = './convvit-base-p16_8xb128-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        arch='huge',
        init_cfg=dict(checkpoint='work_dirs/convmae_convvit-huge-p16_8xb256-amp-coslr-200e_in1k/epoch_200.pth'),
    ),
    head=dict(in_channels=1280),
)

# Linear probe of small by the recipe of base.
#     mim train mmpretrain \
#         configs/convmae/benchmarks/convvit-small-p16_8xb512-linear-coslr-90e_in1k.py --launcher pytorch --gpus 8
_base_ = './convvit-base-p16_8xb512-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='work_dirs/convmae_convvit-small-p16_8xb256-amp-coslr-200e_in1k/epoch_200.pth'),
    ),
    neck=dict(input_features=384),
    head=dict(in_channels=384),
)

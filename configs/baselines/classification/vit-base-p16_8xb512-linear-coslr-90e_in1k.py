# Table 1: linear probe of MAE.
#     mim train mmpretrain \
#         configs/baselines/classification/vit-base-p16_8xb512-linear-coslr-90e_in1k.py --launcher pytorch --gpus 8
_base_ = '../../convmae/benchmarks/convvit-base-p16_8xb512-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch='base',
        frozen_stages=12,
        out_type='cls_token',  # what MAE probes
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
)

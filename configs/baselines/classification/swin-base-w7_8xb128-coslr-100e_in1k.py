# Table 1: SimMIM, finetuned by the recipe of ours.
#     mim train mmpretrain \
#         configs/baselines/classification/swin-base-w7_8xb128-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = '../../convmae/benchmarks/convvit-base-p16_8xb128-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmconvmae.ResizableSwinTransformer',
        arch='base',
        img_size=_base_.img_size,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/simmim_swin-base-w6_8xb256-amp-coslr-1600e_in1k-192px/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=1024),
)
# SimMIM's rate, for twice as many blocks: with 0.65 the first would hardly learn.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))

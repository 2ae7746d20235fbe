# Table 1: data2vec, finetuned by its own recipe.
#     mim train mmpretrain \
#         configs/baselines/classification/data2vec-beit-base-p16_8xb128-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = '../../convmae/benchmarks/convvit-base-p16_8xb128-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=_base_.img_size,
        layer_scale_init_value=1e-4,
        drop_path_rate=0.2,
        out_type='avg_featmap',
        final_norm=False,  # one norm, after the mean over the image
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/data2vec_beit-base-p16_8xb256-amp-coslr-800e_in1k/epoch_800.pth',
            prefix='backbone.',
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.0), paramwise_cfg=dict(layer_decay_rate=0.65))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min_ratio=1e-6 / 4e-3, convert_to_iter_based=True),
]

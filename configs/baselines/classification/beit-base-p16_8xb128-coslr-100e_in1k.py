# Table 1: BEiT, finetuned by the recipe of ours.
#     mim train mmpretrain \
#         configs/baselines/classification/beit-base-p16_8xb128-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = '../../convmae/benchmarks/convvit-base-p16_8xb128-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=_base_.img_size,
        drop_path_rate=0.1,
        out_type='avg_featmap',
        final_norm=False,  # one norm, after the mean over the image
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
)

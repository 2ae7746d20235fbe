# Table 1: data2vec by its own recipe, with the data and runtime of ours; rival_official.py converts its checkpoints.
#     mim train mmpretrain \
#         configs/baselines/pretraining/data2vec_beit-base-p16_8xb256-amp-coslr-800e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

model = dict(
    type='mmconvmae.Data2Vec',
    momentum=2e-4,  # 0.9998 of the average stays in each step
    backbone=dict(
        type='BEiTPretrainViT',
        arch='base',
        out_indices=(6, 7, 8, 9, 10, 11),  # what targets are made of
        final_norm=False,  # it is the head's, for targets go without
        layer_scale_init_value=1e-4,
        drop_path_rate=0.25,
        layer_cfgs=dict(attn_drop_rate=0.05),
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.02, bias=0),
            dict(type='TruncNormal', layer='Conv2d', std=0.02, bias=0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    head=dict(type='mmconvmae.Data2VecHead', embed_dims=768, beta=2.0),
)

# BEiT's crops and colours, and larger masks: 120 of 196 patches, in blocks of 16 to 196.
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.08, 1.0), backend='pillow', interpolation='bicubic'),
    dict(
        type='BEiTMaskGenerator', input_size=(14, 14), num_masking_patches=120, max_num_patches=196, min_num_patches=16
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.999)), clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=800)

# The steps of convmae_convvit-base-p16-fast_8xb256-amp-coslr-200e_in1k with a quarter of the decoding: an epoch has
# four crops of each image, which is decoded once for them. Batch and learning rate count crops.
#     mim train mmpretrain \
#         configs/convmae/convmae_convvit-base-p16-fast-4-crops_8xb256-amp-coslr-50e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16-fast.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmconvmae.RepeatedSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='mmconvmae.RepeatedAugmentation',
        repeats=4,
        dataset=dict(
            type='ImageNet',
            data_root='data/imagenet/',
            split='train',
            pipeline=[dict(type='mmconvmae.LoadWholeImage')],
        ),
        pipeline=_base_.train_pipeline,
    ),
)
# Epochs are four times as long.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)

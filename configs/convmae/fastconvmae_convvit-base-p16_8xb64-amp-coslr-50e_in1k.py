# FastConvMAE: a step trains on four complementary masks of each image, so that an epoch does what four did. It saves
# three quarters of the decoded images, and no arithmetic. Batch and learning rate count images; each is four views.
#     mim train mmpretrain \
#         configs/convmae/fastconvmae_convvit-base-p16_8xb64-amp-coslr-50e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

model = dict(mask_generator=dict(type='mmconvmae.ComplementaryMaskGenerator'))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=6e-4 * 512 / 256))
auto_scale_lr = dict(base_batch_size=512)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)

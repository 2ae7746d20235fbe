# A few minutes on two CPU cores, for tools/demo.sh.
#     mim train mmpretrain configs/convmae/convmae_convvit-tiny-p16_1xb16-coslr-8e_demo-128px.py
_base_ = [
    '../_base_/models/convmae_convvit-tiny-p16.py',
    '../_base_/datasets/image_folder_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

model = dict(
    backbone=dict(img_size=128),
    # Pixels as they are: in minutes that gives shades, where the paper's target, patches without their brightness and
    # contrast, gives flat ones, and a picture needs neither from the original.
    head=dict(norm_pix=False),
)

train_pipeline = [
    dict(type='mmconvmae.LoadRandomResizedCrop', scale=128, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(data_root='data/demo/train/', pipeline=train_pipeline),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8)

default_hooks = dict(logger=dict(interval=16))
# every demonstration begins anew
resume = False

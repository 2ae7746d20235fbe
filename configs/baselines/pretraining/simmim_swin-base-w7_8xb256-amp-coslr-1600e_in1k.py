# Table 1: SimMIM, with the data and the runtime of ours.
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# The method's own: crops of two thirds or more, masks; the limit on gradients. Images and windows are of the size that
# finetuning has, not 192 and 6: mmpretrain cannot resize relative positions with SciPy 1.14 or later.
__simmim = __import__('mmengine.hub').hub.get_config(
    'mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py'
)
model = __simmim.model
model.backbone.update(img_size=224, stage_cfgs=dict(block_cfgs=dict(window_size=7)))
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.67, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='SimMIMMaskGenerator', input_size=224, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__simmim.optim_wrapper.clip_grad)

# Table 1: SimMIM, with the data and the runtime of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/simmim_swin-base-w6_8xb256-amp-coslr-1600e_in1k-192px.py \
#         --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmengine.hub import get_config

# The method's own: images of 192 and windows of 6, of which finetuning makes 224 and 7; crops of two thirds or more,
# masks; the limit on gradients.
__simmim = get_config('mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py')
model = __simmim.model
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=192, crop_ratio_range=(0.67, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='SimMIMMaskGenerator', input_size=192, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__simmim.optim_wrapper.clip_grad)

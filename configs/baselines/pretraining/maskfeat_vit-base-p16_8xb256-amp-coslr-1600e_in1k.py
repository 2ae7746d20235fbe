# Table 1: MaskFeat, with the data and the runtime of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/maskfeat_vit-base-p16_8xb256-amp-coslr-1600e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmengine.hub import get_config

# The method's own: crops of half or more, masks; the limit on gradients.
__maskfeat = get_config('mmpretrain::maskfeat/maskfeat_vit-base-p16_8xb256-amp-coslr-300e_in1k.py')
model = __maskfeat.model
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.5, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='BEiTMaskGenerator', input_size=14, num_masking_patches=78, min_num_patches=15),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__maskfeat.optim_wrapper.clip_grad)

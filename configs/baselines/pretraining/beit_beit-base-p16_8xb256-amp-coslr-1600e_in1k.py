# Table 1: BEiT, with the data and the runtime of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# Below `_base_`: mmengine takes a config that imports above it for one in its other, "lazy" style.
from mmengine.hub import get_config

# The method's own: colours jittered, a second view of each image for the tokenizer, masks; the limit on gradients.
__beit = get_config('mmpretrain::beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py')
model = __beit.model
data_preprocessor = __beit.data_preprocessor
train_pipeline = [
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomResizedCropAndInterpolationWithTwoPic',
        size=224,
        second_size=112,
        interpolation='bicubic',
        second_interpolation='lanczos',
        scale=(0.08, 1.0),
    ),
    dict(
        type='BEiTMaskGenerator',
        input_size=(14, 14),
        num_masking_patches=75,
        max_num_patches=None,
        min_num_patches=16,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__beit.optim_wrapper.clip_grad)
find_unused_parameters = __beit.find_unused_parameters

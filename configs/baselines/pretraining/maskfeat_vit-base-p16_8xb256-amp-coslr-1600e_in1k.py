# Table 1: MaskFeat, with the data and the runtime of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/maskfeat_vit-base-p16_8xb256-amp-coslr-1600e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# The method's own: crops of half or more, masks; the limit on gradients.
__maskfeat = __import__('mmengine.hub').hub.get_config(
    'mmpretrain::maskfeat/maskfeat_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'
)
model = __maskfeat.model
train_pipeline = [dict(type='mmconvmae.LoadWholeImage'), *__maskfeat.train_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__maskfeat.optim_wrapper.clip_grad)

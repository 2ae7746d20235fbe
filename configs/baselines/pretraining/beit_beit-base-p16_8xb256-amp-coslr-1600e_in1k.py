# Table 1: BEiT, with the data and the runtime of ours.
#     mim train mmpretrain \
#         configs/baselines/pretraining/beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../../_base_/datasets/imagenet_bs256_convmae.py',
    '../../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../../_base_/convmae_runtime.py',
]

# The method's own: colours jittered, a second view of each image for the tokenizer, masks; the limit on gradients.
__beit = __import__('mmengine.hub').hub.get_config('mmpretrain::beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py')
model = __beit.model
data_preprocessor = __beit.data_preprocessor
train_pipeline = [dict(type='mmconvmae.LoadWholeImage'), *__beit.train_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(clip_grad=__beit.optim_wrapper.clip_grad)
find_unused_parameters = __beit.find_unused_parameters

# Huge with parameters, gradients and the optimiser's state divided among the GPUs (FSDP, of mmengine's FlexibleRunner):
#     mim train mmpretrain CONFIG --launcher pytorch --gpus 8
# What mmconvmae's own runner adds is not there: fitting the warm-up to a short run, and a schedule that follows the
# config when a run goes on. Checkpoints are whole, and any other config takes them.
#     mim train mmpretrain \
#         configs/convmae/convmae_convvit-huge-p16_8xb256-amp-fsdp-coslr-200e_in1k.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

model = dict(backbone=dict(arch='huge'))
train_cfg = dict(max_epochs=200)

runner_type = 'FlexibleRunner'
# Blocks of stage 3 become units. The decoder's must not: the last of them is computed in parts.
policy = dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=10_000_000)
strategy = dict(type='mmconvmae.FSDPStrategy', model_wrapper=dict(auto_wrap_policy=policy), state_dict_cfg='full')
# A part of a parameter has one dimension, whatever the parameter has: no decay of biases and norms, by what they are.
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0))

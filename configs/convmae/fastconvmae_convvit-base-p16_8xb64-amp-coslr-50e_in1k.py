# FastConvMAE: a step trains on four complementary masks of each image, so that an epoch does what four did. It saves
# three quarters of the decoded images, and no arithmetic. Batch and learning rate count images; each is four views.
_base_ = './convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(mask_generator=dict(type='mmconvmae.ComplementaryMaskGenerator'))
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=6e-4 * 512 / 256))
auto_scale_lr = dict(base_batch_size=512)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=10)
param_scheduler[1].update(begin=10)
train_cfg = dict(max_epochs=50)

# VideoMAE's schedule; the paper does not say which.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 2048 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    # no weight decay on one-dimensional parameters: biases and norms
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
# the learning rate above is for this total batch size
auto_scale_lr = dict(enable=True, base_batch_size=2048)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 1.5e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=40, eta_min_ratio=1e-5 / 1.5e-4, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=800)

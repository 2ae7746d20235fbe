# The layer-wise rate of LARS is for weights; a bias takes the learning rate as it is.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype=None,
    optimizer=dict(type='LARS', lr=0.1 * 4096 / 256, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head.fc.bias': dict(lars_exclude=True)}),
)
auto_scale_lr = dict(enable=True, base_batch_size=4096)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=10, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()

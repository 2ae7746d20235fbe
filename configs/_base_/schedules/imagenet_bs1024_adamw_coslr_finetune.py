# The learning rate falls by `layer_decay_rate` from each layer to the one before.
optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype=None,
    constructor='LearningRateDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)

# Half a cosine to 1e-6 in the last layer, and to as small a share of its learning rate in each other.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, eta_min_ratio=1e-6 / 2e-3, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

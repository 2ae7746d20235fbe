# Clips of 16 frames; a config adds the list and the distance of frames.
data_preprocessor = dict(
    type='mmconvmae.ClipDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
)
# One crop for all frames, neither flipped nor recoloured, as in VideoMAE; the paper does not say.
augmentation = [
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=[dict(type='mmconvmae.MultiScaleCrop', scale=224)],
    ),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    # Workers start anew with each epoch, so that EpochSeedHook decides what they draw.
    persistent_workers=False,
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)

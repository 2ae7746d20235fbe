# Pretraining on a folder of your own videos, on one GPU or none. Copy this file, change what follows, and run
#     mim train mmpretrain my_pretrain_videos.py
data_root = 'data/videos/'  # the folder, with sub-folders or without; no labels
video_list = ''  # 'train.txt': the videos that it names, lines of a path in data_root; '': all of the folder
skip_damaged = False  # True: leaves out videos that cannot be decoded, and names them in the log
arch = 'small'  # tiny, small, base, large or huge
image_size = 224  # height and width of what the model sees, a multiple of 16
num_frames = 16  # of a clip, an even number
frame_interval = 4  # frames from one of a clip to the next; None: one from each of num_frames parts of the video
mask_ratio = 0.9  # share that is removed; 0.75 where image_size is 64
mean = [123.675, 116.28, 103.53]  # of red, green and blue
std = [58.395, 57.12, 57.375]
decoder = 'opencv'  # 'av' or 'decord', if installed
batch_size = 16  # clips on one GPU; the learning rate follows it
max_epochs = 800
base_lr = 1.5e-4  # for 256 clips a step
pretrained = None  # weights to begin with, such as those of images: inflate_image_checkpoint.py makes them

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = __import__('mmconvmae').__path__[0] + '/.mim/configs/_base_/convmae_runtime.py'

# VideoMAE's decoder would cost the tiny model many times what its encoder does.
decoder_arch = (
    dict(embed_dims=128, depth=2, num_heads=4) if arch == 'tiny' else dict(embed_dims=384, depth=4, num_heads=6)
)
model = dict(
    type='mmconvmae.ConvMAE',
    pretrained=pretrained,
    mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=mask_ratio, round_up=True),
    backbone=dict(type='mmconvmae.VideoConvMAEViT', arch=arch, img_size=image_size, num_frames=num_frames),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', **decoder_arch),
    head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix='channel'),
)
data_preprocessor = dict(type='mmconvmae.ClipDataPreprocessor', mean=mean, std=std)

sampler = (
    dict(type='mmconvmae.DenseClip', num_frames=num_frames, frame_interval=frame_interval)
    if frame_interval
    else dict(type='mmconvmae.SegmentClip', num_frames=num_frames)
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=False,  # they start anew with each epoch, so that EpochSeedHook decides what they draw
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmconvmae.VideoList',
        data_root=data_root,
        ann_file=video_list,
        skip_damaged=skip_damaged,
        pipeline=[
            dict(type='mmconvmae.LoadClip', sampler=sampler, decoder=decoder),
            dict(
                type='TransformBroadcaster',  # one crop for all frames
                mapping=dict(img='imgs'),
                auto_remap=True,
                share_random_params=True,
                transforms=[dict(type='mmconvmae.MultiScaleCrop', scale=image_size)],
            ),
            dict(type='mmconvmae.FormatClips'),
            dict(type='PackInputs'),
        ],
    ),
)

optim_wrapper = dict(
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
auto_scale_lr = dict(enable=True, base_batch_size=256)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=40, eta_min_ratio=1e-5 / 1.5e-4, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=20))

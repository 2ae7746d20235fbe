# Pretraining on a folder of your own images, on one GPU or none. Copy this file, change what follows, and run
#     mim train mmpretrain my_pretrain.py
data_root = 'data/images/'  # the folder, with sub-folders or without; any format, no labels
held_out_root = None  # a folder of other images: their loss and pictures every few epochs. None: nothing is held out
arch = 'small'  # tiny, small, base, large or huge; docs/own_images.md says which suits how many images
img_size = (224, 224)  # height and width of what the model sees, multiples of 16
in_channels = 3  # 1: grey, 3: colour, 4 or more: as in the files
mean = [123.675, 116.28, 103.53]  # of each channel, in the units of the files;
std = [58.395, 57.12, 57.375]  # `scan_images.py FOLDER` prints both
full_scale = None  # 255: scales 8 and 16 bits to 0 ... 255, where a folder has both
skip_damaged = False  # True: leaves out images that cannot be read, and names them in the log
batch_size = 64  # on one GPU; the learning rate follows it
max_epochs = 200
base_lr = 1.5e-4  # for 256 images a step
pretrained = None  # weights to begin with, such as the authors' converted: 'ours.pth'

# ---------------------------------------------------------------------------------------------------------------
# What follows from these. A change above reaches it in this file only, and from elsewhere is refused.
settings = {name: value for name, value in dict(globals()).items() if not name.startswith('_')}
_base_ = __import__('mmconvmae').__path__[0] + '/.mim/configs/_base_/convmae_runtime.py'

# The paper's decoder would cost the tiny model many times what its encoder does.
decoder = dict(embed_dims=128, depth=2, num_heads=4) if arch == 'tiny' else dict(embed_dims=512, depth=8, num_heads=16)
model = dict(
    type='mmconvmae.ConvMAE',
    pretrained=pretrained,
    mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.75),
    backbone=dict(type='mmconvmae.ConvMAEViT', arch=arch, img_size=img_size, in_channels=in_channels),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', **decoder),
    head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix=True),
)
data_preprocessor = dict(type='mmconvmae.ImageDataPreprocessor', mean=mean, std=std)

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=False,  # they start anew with each epoch, so that EpochSeedHook decides what they draw
    worker_init_fn=dict(type='mmconvmae.worker_init_fn'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmconvmae.ImageFolder',
        data_root=data_root,
        skip_damaged=skip_damaged,
        pipeline=[
            dict(
                type='mmconvmae.LoadRandomResizedCrop',
                scale=img_size,
                crop_ratio_range=(0.2, 1.0),
                in_channels=in_channels,
                full_scale=full_scale,
            ),
            dict(type='RandomFlip', prob=0.5),
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
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=40, eta_min=0.0, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
default_hooks = dict(logger=dict(interval=20))
if held_out_root is not None:
    custom_hooks = [
        *_base_.custom_hooks,
        dict(
            type='mmconvmae.ReconstructionHook',
            data_root=held_out_root,
            loader=dict(type='mmconvmae.LoadWholeImage', in_channels=in_channels, full_scale=full_scale),
            interval=10,
        ),
    ]

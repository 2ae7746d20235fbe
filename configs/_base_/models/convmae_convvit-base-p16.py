# The backbone's settings are given once: decoder and head follow them.
model = dict(
    type='mmconvmae.ConvMAE',
    mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.75),
    backbone=dict(type='mmconvmae.ConvMAEViT', arch='base', img_size=224),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=512, depth=8, num_heads=16),
    head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix=True),
)

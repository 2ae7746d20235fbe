# The paper leaves the model open. As in VideoMAE: tubes of 2 x 16 x 16 pixels, of which 90 % are removed and 20 of 196
# kept; a decoder of width 384 with 4 blocks (512 and 8, as on images, would cost three times the encoder); cubes
# normalised by channel. As on images: blocks, masked convolution, two scales added to the third.
model = dict(
    type='mmconvmae.ConvMAE',
    mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.9, round_up=True),
    backbone=dict(type='mmconvmae.VideoConvMAEViT', arch='base', img_size=224, num_frames=16),
    neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=384, depth=4, num_heads=6),
    head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix='channel'),
)

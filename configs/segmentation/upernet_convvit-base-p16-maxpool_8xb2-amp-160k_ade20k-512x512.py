# Table 3: UperNet on ConvMAE-B with the 153 M parameters that the paper gives, 51.7 mIoU.
#     mim train mmseg \
#         configs/segmentation/upernet_convvit-base-p16-maxpool_8xb2-amp-160k_ade20k-512x512.py \
#         --launcher pytorch --gpus 8
_base_ = './upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

model = dict(backbone=dict(fourth_level='max_pool'))

# Your own images: --cfg-options train_dataloader.dataset.data_root=PATH
#     mim train mmpretrain \
#         configs/convmae/convmae_convvit-base-p16_8xb256-amp-coslr-200e_image-folder.py --launcher pytorch --gpus 8
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/image_folder_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)

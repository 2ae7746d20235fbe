# FastConvMAE, 100 epochs.
#     mim train mmpretrain \
#         configs/convmae/fastconvmae_convvit-base-p16_8xb64-amp-coslr-100e_in1k.py --launcher pytorch --gpus 8
_base_ = './fastconvmae_convvit-base-p16_8xb64-amp-coslr-50e_in1k.py'

train_cfg = dict(max_epochs=100)

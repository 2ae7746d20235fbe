# A test with six scales and flipping, as with `--tta` of mmseg's own test script.
#     mim train mmseg \
#         configs/segmentation/upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512-ms.py --launcher pytorch --gpus 8
_base_ = './upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py'

model = dict(_delete_=True, **_base_.tta_model, module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))

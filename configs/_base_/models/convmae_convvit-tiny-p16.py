# For a CPU. The paper's decoder would cost the tiny model many times what its encoder does.
_base_ = './convmae_convvit-base-p16.py'

model = dict(backbone=dict(arch='tiny'), neck=dict(embed_dims=128, depth=2, num_heads=4))

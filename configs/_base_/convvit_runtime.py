_base_ = './convmae_runtime.py'

default_hooks = dict(checkpoint=dict(save_best='auto'))
# `--resume` goes on from the last checkpoint; a test must not.
resume = False

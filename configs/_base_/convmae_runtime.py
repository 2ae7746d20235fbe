_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['mmconvmae'], allow_failed_imports=False)
# As in mmpretrain, without the scope that an inherited one has and mmpretrain's own tools refuse.
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
runner_type = 'mmconvmae.ScheduleRunner'
custom_hooks = [
    dict(type='mmconvmae.EpochSeedHook'),
    dict(type='mmconvmae.FiniteCheckHook'),
]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3))

randomness = dict(seed=0, diff_rank_seed=True)
# go on from the last checkpoint in the work directory, if there is one
resume = True

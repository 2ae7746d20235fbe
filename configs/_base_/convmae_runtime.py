default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmconvmae'], allow_failed_imports=False)
runner_type = 'mmconvmae.ScheduleRunner'

# As in mmpretrain's default_runtime.py, apart from the checkpoints that are kept.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),  # steps
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
custom_hooks = [
    dict(type='mmconvmae.EpochSeedHook'),
    dict(type='mmconvmae.FiniteCheckHook'),
]
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'

randomness = dict(seed=0, deterministic=False, diff_rank_seed=True)
load_from = None
# go on from the last checkpoint in the work directory, if there is one
resume = True

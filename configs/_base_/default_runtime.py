default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=600),  # seconds until a process that does not answer ends the run
)
# without diff_rank_seed, all processes draw the same boxes, permutations and dropped channels
randomness = dict(seed=0, diff_rank_seed=True)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer', alpha=0.6)
log_processor = dict(by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False

# not in custom_hooks: a child config that sets custom_hooks replaces the whole list
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='allspark_mmseg.SafeCheckpointHook', interval=1, max_keep_ckpts=2, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    startup_check=dict(type='allspark_mmseg.StartupCheckHook'),
    class_weights=dict(type='allspark_mmseg.ClassWeightHook'),
    exact_resume=dict(type='allspark_mmseg.ExactResumeHook'),
    unreadable_images=dict(type='allspark_mmseg.UnreadableImagesHook', max_share=0.0),
    non_finite_loss=dict(type='allspark_mmseg.NonFiniteLossHook', patience=10),
    mean_teacher=dict(type='allspark_mmseg.MeanTeacherHook'),
    sync_bn_stats=dict(type='allspark_mmseg.SyncBNStatsHook'),
    class_statistics=dict(type='allspark_mmseg.ClassStatisticsHook', interval=200),
    stop_signal=dict(type='allspark_mmseg.StopSignalHook'),
    pseudo_label_quality=dict(type='allspark_mmseg.PseudoLabelQualityHook'),
)

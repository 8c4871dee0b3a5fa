"""Rows of each kind train and validate, on small data with the real layout."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from ..helpers.configs import make_tiny, read_rows, replace_size
from ..helpers.stand_ins import shorten, use_stand_in

ROWS = read_rows()


@pytest.mark.parametrize(
    'name',
    [
        'voc_1over16',
        'cityscapes_1over16',
        'coco_1over512',
        'self_training_voc_1over16_mit-b5',
        'self_training_cityscapes_1over16_mit-b5',
        'self_training_coco_1over512_mit-b5',
        'supervised_voc_1over16_mit-b5',
        'supervised_cityscapes_1over16_mit-b5',
        'supervised_coco_1over512_mit-b5',
        'unimatch_voc_1over16_r101-d16',
        'unimatch_cityscapes_1over16_r101-d16',
        'fixmatch_voc_u2pl_1over16_r101-d16',
        'fixmatch_voc_92_dinov2-b14',
        'unimatch_v2_cityscapes_1over16_dinov2-b14',
        'mean_teacher_voc_92_r101-d16',
        'supervised_voc_92_dinov2-b14',
        's4former_voc_92_deit-b16',
        's4former_cityscapes_1over8_deit-b16',
        'mean_teacher_voc_92_deit-b16',
        'supervised_voc_92_deit-b16',
        'css_voc_92_r101-d8_cross',
        'css_cityscapes_1over16_r101-d8_mix',
    ],
)
def test_row_trains_and_validates(name, stand_ins, tmp_path):
    """The published protocol on small data: one epoch and a validation, no parameter without a gradient."""
    run = ROWS[name].load()
    small, stride = ((70, 70), (42, 42)) if run.dinov2 else ((65, 65), (48, 48))
    small = (64, 64) if run.deit else small
    cfg = Config(replace_size(run.cfg.to_dict(), tuple(run.cfg.crop_size), small))
    for old in ((534, 534), (532, 532), (512, 512)):
        cfg = Config(replace_size(cfg.to_dict(), old, stride))
    use_stand_in(cfg, stand_ins[run.dataset])
    make_tiny(cfg.model)
    if run.method == 'allspark':
        cfg.default_hooks.memory_warm_up.epochs = 0
    shorten(cfg.train_dataloader, run.supervised)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    if run.by_epoch:
        cfg.train_cfg.max_epochs = 1
    else:
        cfg.train_cfg.update(max_iters=1, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
    cfg.visualizer.update(name=name, vis_backends=[dict(type='LocalVisBackend')])
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = name
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    reached = set()
    for key, parameter in runner.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, key=key: reached.add(key))
    runner.train()
    trained = {key for key, parameter in runner.model.named_parameters() if parameter.requires_grad}
    assert reached == trained, 'find_unused_parameters would be needed'
    assert runner.iter == (1 if run.supervised else 3)
    if run.method == 'allspark':
        assert bool(runner.model.memory_ready)
        assert runner.model.memory.filled.max() > 0
    validated = ['mIoU']
    if cfg.val_cfg.type.endswith('TeacherStudentValLoop'):
        validated.append('student/mIoU' if 'predict_on' in cfg.model else 'teacher/mIoU')
    for metric in validated:
        assert 0 <= runner.message_hub.get_scalar(f'val/{metric}').current() <= 100
    assert list(tmp_path.glob('best_mIoU_*_1.pth'))

"""A small project with real files for the tests that start real processes: images, masks, lists and configs."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from .configs import ROOT

EPOCHS = 2

# ruff: noqa: E501
CONFIG = """
_base_ = [
    '{root}/configs/_base_/models/segformer_mit-b0.py',
    '{root}/configs/_base_/schedules/adamw_poly_10e.py',
    '{root}/configs/_base_/default_runtime.py',
]
metainfo = dict(classes=('sky', 'road', 'car'), palette=[[0, 0, 255], [90, 90, 90], [255, 0, 0]])
crop = (65, 65)
geometry = [
    dict(type='allspark_mmseg.RandomResizeLongSide', ratio_range=(0.5, 2.0)),
    dict(type='Pad', size=crop, pad_val=dict(img=0, seg=255)),
    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=1.0),
]
pack = dict(type='PackSegInputs')
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), pack]
train_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='allspark_mmseg.DualStreamSampler', labeled=1, unlabeled=2),
    dataset=dict(
        type='allspark_mmseg.SemiDataset', data_root='{data}', metainfo=metainfo,
        labeled=dict(ann_file='labeled.txt', pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *geometry,
            dict(type='allspark_mmseg.MultiView', labeled=[pack])]),
        unlabeled=dict(data_prefix=dict(img_path='unlabeled'), pipeline=[
            dict(type='LoadImageFromFile'), *geometry, dict(type='allspark_mmseg.MultiView', weak=[pack])])))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='allspark_mmseg.ImageListDataset', data_root='{data}', metainfo=metainfo, pipeline=test_pipeline,
        data_prefix=dict(img_path='val', seg_map_path='val_masks')))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
segmentor = _base_.model
segmentor.data_preprocessor.size = crop
segmentor.backbone.update(embed_dims=8, num_layers=[1, 1, 1, 1], init_cfg=None)
segmentor.decode_head.update(in_channels=[8, 16, 40, 64], channels=16, num_classes=3)
segmentor.decode_head = dict(
    type='allspark_mmseg.AllSparkHead', bottleneck=dict(in_channels=64, crop_size=crop),
    decoder=segmentor.decode_head)
model = dict(_delete_=True, type='allspark_mmseg.AllSpark', segmentor=segmentor)
param_scheduler = [dict(_base_.param_scheduler[0], end=8)]
train_cfg = dict(max_epochs={epochs}, val_interval=1)
default_hooks = dict(logger=dict(interval=1), class_statistics=dict(interval=2))
custom_hooks = [
    dict(type='allspark_mmseg.MemoryWarmUpHook', epochs=1),
    dict(type='allspark_mmseg.PseudoLabelVisualizationHook', interval=2, num=1),
]
auto_scale_lr = dict(enable=False, base_batch_size=12)
"""


# the same data under another method: how the student is changed, and the method's own arguments
METHODS = {
    's4former': """
segmentor.backbone = dict(
    type='allspark_mmseg.VisionTransformer', img_size=65, patch_size=13, patch_bias=True, embed_dims=16,
    num_layers=2, num_heads=2, mlp_ratio=2, out_indices=(0, 1), interpolate_mode='bilinear')
segmentor.decode_head = dict(
    type='SETRUPHead', in_channels=16, in_index=1, channels=8, num_classes=3, up_scale=4, kernel_size=3,
    norm_cfg=dict(type='SyncBN'), norm_layer=dict(type='LN', eps=1e-6), dropout_ratio=0)
method = dict(
    type='allspark_mmseg.S4Former', threshold=0.34, shuffle=dict(block_size=13), ignore_padding=False)
""",
    'css': """
segmentor.decode_head = dict(
    type='allspark_mmseg.RepresentationHead', in_channels=(8, 64), in_index=(0, 3), channels=8, c1_channels=8,
    dilations=(1, 2), representation_channels=8, num_classes=3, norm_cfg=dict(type='GN', num_groups=2))
method = dict(
    type='allspark_mmseg.CSSCross', threshold=0.34, weak_threshold=0.34, queries=8, negatives=8, warm_up=1,
    similarity_temperature=0.5)
""",
    'unimatch_v2': """
segmentor.decode_head = segmentor.decode_head.decoder
method = dict(type='allspark_mmseg.UniMatchV2', threshold=0.34, ignore_padding=False)
""",
}
METHOD_CONFIG = """
_base_ = './config.py'
segmentor = _base_.segmentor
{method}
model = dict(_delete_=True, segmentor=segmentor, predict_on='teacher', **method)
load_unlabeled = _base_.train_dataloader.dataset.unlabeled.pipeline[:-1]
views = dict(
    type='allspark_mmseg.MultiView', strong_1=[dict(type='PhotoMetricDistortion'), _base_.pack],
    strong_2=[dict(type='PhotoMetricDistortion'), _base_.pack], weak=[_base_.pack])
train_dataloader = dict(dataset=dict(unlabeled=dict(pipeline=[*load_unlabeled, views])))
val_cfg = dict(type='allspark_mmseg.TeacherStudentValLoop')
custom_hooks = _base_.custom_hooks[1:]  # the memory is AllSpark's
"""


def write_images(folder: Path, count: int, masks: Path | None = None) -> None:
    rng = np.random.default_rng(len(str(folder)))
    for target in filter(None, (folder, masks)):
        target.mkdir(parents=True)
    for i in range(count):
        mask = rng.integers(0, 3, (5, 6), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        pixels = (mask[..., None] * 80 + rng.integers(0, 60, (*mask.shape, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.jpg')
        if masks:
            Image.fromarray(mask).save(masks / f'{i}.png')


def write_project(folder: Path, images: tuple[int, int, int] = (3, 9, 3), **methods: str) -> Path:
    """Write data, ``config.py`` and one config for each of ``methods``.

    Args:
        folder: The folder of the project.
        images: Labeled, unlabeled and validation images.
        methods: Changes of the config, such as the values of ``METHODS``.
    """
    data, (labeled, unlabeled, val) = folder / 'data', images
    write_images(data / 'labeled', labeled, data / 'masks')
    write_images(data / 'unlabeled', unlabeled)
    write_images(data / 'val', val, data / 'val_masks')
    (data / 'labeled.txt').write_text(''.join(f'labeled/{i}.jpg masks/{i}.png\n' for i in range(labeled)))
    # relative to the working directory, as in most configs
    config = CONFIG.format(root=ROOT, data=os.path.relpath(data), epochs=EPOCHS)
    (folder / 'config.py').write_text(config)
    for name, method in methods.items():
        (folder / f'{name}.py').write_text(METHOD_CONFIG.format(method=method))
    return folder

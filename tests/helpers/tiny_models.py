"""Tiny networks, batches and training steps for tests."""

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

CLASSES = 4
CROP = (65, 65)
WIDTHS = [8, 16, 40, 64]


def tiny_head(widths: list[int] | None = None, **overrides) -> dict:
    return dict(
        type='allspark_mmseg.AllMLPHead',
        in_channels=widths or WIDTHS,
        channels=16,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN'),
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        **overrides,
    )


def tiny_segmentor(**overrides) -> dict:
    """Config of a plain SegFormer of four blocks; its deepest feature has 64 channels and stride 32."""
    return (
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='SegDataPreProcessor',
                mean=[120.0, 110.0, 100.0],
                std=[60.0, 55.0, 50.0],
                bgr_to_rgb=True,
                size=CROP,
                pad_val=0,
                seg_pad_val=255,
            ),
            backbone=dict(
                type='allspark_mmseg.MixVisionTransformer',
                embed_dims=8,
                num_layers=[1, 1, 1, 1],
                num_heads=[1, 2, 5, 8],
            ),
            decode_head=tiny_head(),
            test_cfg=dict(mode='whole'),
        )
        | overrides
    )


def tiny_resnet(**overrides) -> dict:
    """Config of a plain ResNet-18 of widths 8 to 64 whose batch norms stay in eval mode while it trains."""
    backbone = dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=dict(type='BN'), norm_eval=True
    )
    return tiny_segmentor(backbone=backbone, decode_head=tiny_head([8, 16, 32, 64])) | overrides


def behind_bottleneck(segmentor: dict, **bottleneck) -> dict:
    """Config of the segmentor with an ``AllSparkHead`` around its head; ``bottleneck`` are its arguments."""
    arguments = dict(in_channels=64, crop_size=CROP, num_heads=2, dropout=0.0) | bottleneck
    head = dict(type='allspark_mmseg.AllSparkHead', bottleneck=arguments, decoder=segmentor['decode_head'])
    return segmentor | dict(decode_head=head)


def build_model(config: dict) -> torch.nn.Module:
    """Build a model as the Runner does, from a ``ConfigDict`` (MMSegmentation reads ``test_cfg.mode``)."""
    return MODELS.build(ConfigDict(config))


def padding_marks(size: tuple[int, int]) -> PixelData:
    """What ``LoadEmptyAnnotations`` gives an unlabeled crop whose lower half is padding."""
    data = torch.zeros(1, *size, dtype=torch.int64)
    data[:, size[0] // 2 :] = 255
    return PixelData(data=data)


def samples(count: int, size: tuple[int, int] = CROP, *, ignored: bool = False) -> list[SegDataSample]:
    """Random masks with some ignored pixels, or with nothing else."""
    made = []
    for _ in range(count):
        mask = torch.randint(CLASSES, (1, *size))
        mask[torch.rand(1, *size) < 0.1] = 255
        data = torch.full_like(mask, 255) if ignored else mask
        made.append(SegDataSample(gt_sem_seg=PixelData(data=data), metainfo=dict(img_shape=size)))
    return made


def batch(
    labeled: int = 2,
    unlabeled: int = 2,
    *,
    size: tuple[int, int] = CROP,
    views: tuple[str, ...] = ('weak',),
    ignored: bool = False,
) -> tuple[dict, dict]:
    """Random arguments for ``loss``: views (N, 3, H, W) and their samples; follows torch's seed."""
    inputs = dict(labeled=torch.randn(labeled, 3, *size))
    data_samples = dict(labeled=samples(labeled, size, ignored=ignored))
    for view in views:
        inputs[view] = torch.randn(unlabeled, 3, *size)
        data_samples[view] = [
            SegDataSample(gt_sem_seg=padding_marks(size), metainfo=dict(img_shape=size))
            for _ in range(unlabeled)
        ]
    return inputs, data_samples


def losses_in(entries: dict, prefix: str = '') -> torch.Tensor:
    """Sum the losses whose name starts with ``prefix``; there must be one."""
    chosen = [value for name, value in entries.items() if 'loss' in name and name.startswith(prefix)]
    assert chosen, f'no {prefix}*loss* among {sorted(entries)}'
    return sum(chosen)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by parameter name, of those parameters that have one."""
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def train_steps(model: torch.nn.Module, steps: list[tuple[dict, dict]]) -> tuple[list[dict], dict]:
    """Train with SGD under one seed; return the entries of each step and the final state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    logged = []
    for inputs, data_samples in steps:
        entries = model.loss(inputs, data_samples)
        optimizer.zero_grad()
        losses_in(entries).backward()
        optimizer.step()
        if model.teacher is not None:
            model.teacher.update_parameters(model.student)  # as MeanTeacherHook does
        logged.append({name: value.detach().clone() for name, value in entries.items()})
    return logged, {name: value.clone() for name, value in model.state_dict().items()}


def same(left: dict, right: dict) -> bool:
    """Whether two dicts hold equal tensors under equal names."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)

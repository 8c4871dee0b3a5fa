"""Vectors of S4Former's sampler and of the numbers in its configs.

Executed: ``mmseg/datasets/samplers/semi_sampler.py``. Read: three files of ``configs/setr/``.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmengine
import numpy as np

from .record import Vectors
from .reference import Reference

STEM = 'configs/setr/setr_deit-base_pup_bs_8_512x512_80k_pascal_1over16_split_classic_'
CONFIGS = {
    'sup': 'sup',
    'mean_teacher': 'semi_beta_1_th_0.95_MT',
    'ours': 'semi_beta_1_th_0.95_MT_w_ours',
}


def record_sampler(reference: Reference, vectors: Vectors) -> None:
    """Record the indices of two ranks; their order is random."""
    for rank in (0, 1):
        sampler = reference.sampler(
            SimpleNamespace(cumulative_sizes=[10, 47]),
            max_iter_size=9,
            sample_ratio=[4, 4],
            samples_per_gpu=8,
            num_replicas=2,
            rank=rank,
        )
        vectors.put(f'as_released.sampler.rank{rank}', np.array(list(sampler)).reshape(9, 8))
    vectors.put('as_released.sampler.sizes', [10, 37])


def config_numbers(cfg: Any) -> dict[str, float]:
    """Return the numbers of a config by the names of the vectors; NaN where a config has none."""
    model = cfg.model
    return dict(
        unsup_weight=model.unsup_weight,
        threshold=model.unsup_confidence,
        ema_momentum=model.ema_momentum,
        lr=cfg.optimizer.lr,
        head_lr_mult=cfg.optimizer.paramwise_cfg.custom_keys.head.lr_mult,
        sgd_momentum=cfg.optimizer.momentum,
        weight_decay=cfg.optimizer.weight_decay,
        poly_power=cfg.lr_config.power,
        min_lr=cfg.lr_config.min_lr,
        max_iters=cfg.runner.max_iters,
        eval_interval=cfg.evaluation.interval,
        checkpoint_interval=cfg.checkpoint_config.interval,
        attn_mask_weight=model.get('attn_mask_weight', math.nan),
        block_tokens=model.get('PatchMix_N', math.nan),
        samples_per_gpu=cfg.data.samples_per_gpu,
        labelled_per_gpu=cfg.data.sampler.train.sample_ratio[0],
        decode_weight=model.decode_head.loss_decode.loss_weight,
        aux_heads=len(model.auxiliary_head),
        aux_weight=model.auxiliary_head[0].loss_decode.loss_weight,
        drop_rate=model.backbone.drop_rate,
    )


def record_configs(checkout: Path, vectors: Vectors) -> None:
    """Record the numbers of the three configs."""
    for tag, end in CONFIGS.items():
        numbers = config_numbers(mmengine.Config.fromfile(checkout / f'{STEM}{end}.py'))
        if 'config.names' not in vectors:
            vectors.put('config.names', list(numbers))
        vectors.put(f'config.{tag}', np.array([float(number) for number in numbers.values()]))

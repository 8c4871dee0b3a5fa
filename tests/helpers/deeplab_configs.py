"""Configs of UniMatch's CNNs, without pre-trained weights."""

from mmengine.config import Config

from .configs import ROOT

BASES = {
    'resnet50': 'deeplabv3plus_r50-d16',
    'resnet101': 'deeplabv3plus_r101-d16',
    'xception': 'deeplabv3plus_xception65',
}


def config_of(name: str, num_classes: int) -> Config:
    """Return the config of ``resnet50``, ``resnet101`` or ``xception`` with plain batch norms."""
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{BASES[name]}.py')
    assert cfg.model.backbone.init_cfg.checkpoint.startswith('pretrained/')
    cfg.model.backbone.init_cfg = None
    for part in (cfg.model.backbone, cfg.model.decode_head):
        assert part.norm_cfg.type == 'SyncBN'
        part.norm_cfg.type = 'BN'
    cfg.model.decode_head.num_classes = num_classes
    return cfg

"""CSS, "Space Engage" (ICCV 2023)."""

from .contrast import contrastive_loss, draw_pixels, negative_classes
from .css import CSS
from .geometry import Rescale, flip_horizontally
from .prototypes import ClassPrototypes
from .targets import Targets, classifier_loss
from .variants import CSSBaseline, CSSCross, CSSMix

__all__ = [
    'CSS',
    'CSSBaseline',
    'CSSCross',
    'CSSMix',
    'ClassPrototypes',
    'Rescale',
    'Targets',
    'classifier_loss',
    'contrastive_loss',
    'draw_pixels',
    'flip_horizontally',
    'negative_classes',
]

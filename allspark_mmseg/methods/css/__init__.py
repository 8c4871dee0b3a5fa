"""CSS, "Space Engage" (ICCV 2023)."""

from .contrast import contrastive_loss, draw, negative_classes
from .css import CSS, CSSBaseline, CSSCross, CSSMix, SimilarityCSS, Targets
from .geometry import Rescale, flipped
from .prototypes import ClassPrototypes

__all__ = [
    'CSS',
    'CSSBaseline',
    'CSSCross',
    'CSSMix',
    'ClassPrototypes',
    'Rescale',
    'SimilarityCSS',
    'Targets',
    'contrastive_loss',
    'draw',
    'flipped',
    'negative_classes',
]

"""Make ``ohem.npz``, loss and gradient of OHEM cross-entropy, from a checkout of UniMatch.

Reference: https://github.com/LiheYoung/UniMatch. Executed: ``ProbOhemCrossEntropy2d`` of ``util/ohem.py``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import add_to_path, make_parser, save
from torch import Tensor

# threshold, min_kept (None: all valid pixels), share of ignored pixels, logit added to the true class
CASES: list[tuple[float, int | None, float, int]] = [
    (0.7, 50, 0.1, 0),
    (0.7, 5000, 0.1, 0),
    (0.3, 200, 0.0, 0),
    (0.7, 700, 0.5, 0),
    (0.9, 1, 0.2, 0),
    (0.7, 250, 0.1, 6),
    (0.3, 500, 0.2, 4),
    (0.7, None, 0.1, 6),
]
CLASSES = 5


def draw_inputs(ignored: float, margin: int) -> tuple[Tensor, Tensor]:
    """Draw logits (2, K, 16, 20) and a label (2, 16, 20), in which 255 is ignored."""
    logits = torch.randn(2, CLASSES, 16, 20) * 3
    label = torch.randint(0, CLASSES, (2, 16, 20))
    label[torch.rand(label.shape) < ignored] = 255
    if margin:
        one_hot = F.one_hot(label.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2)
        logits = logits + margin * one_hot
    return logits, label


def record_cases(loss_class: Callable) -> dict:
    """Run the released loss on every case."""
    vectors = {}
    for i, (threshold, min_kept, ignored, margin) in enumerate(CASES):
        logits, label = draw_inputs(ignored, margin)
        logits.requires_grad_()
        if min_kept is None:
            min_kept = int((label != 255).sum())
        loss = loss_class(255, thresh=threshold, min_kept=min_kept)(logits, label.clone())
        loss.backward()
        entries = dict(
            thresh=threshold,
            min_kept=min_kept,
            logits=logits,
            target=label.to(torch.uint8),
            loss=loss.item(),
            grad=logits.grad,
        )
        vectors.update({f'{i}.{key}': value for key, value in entries.items()})
    return vectors


def main(argv: list[str] | None = None) -> None:
    args = make_parser(__doc__).parse_args(argv)
    add_to_path(args.reference)
    from util.ohem import ProbOhemCrossEntropy2d

    torch.manual_seed(args.seed)
    save(args.out / 'ohem.npz', record_cases(ProbOhemCrossEntropy2d))


if __name__ == '__main__':
    main()

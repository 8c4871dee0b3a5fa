"""Make ``s4former.npz``, vectors of S4Former, from a checkout of S4Former.

Reference: https://github.com/JoyHuYY1412/S4Former. The modules in ``s4former/`` name the files that they
execute. All computations are in float64.

Replaced: MMCV 1, the export of the mixing functions, the attribute from which the released ViT reads
attention weights, and an argument that the released evaluation does not pass. The vectors under
``teacher_mixed.`` differ from the release in one more point: the teacher's logits are mixed like the labels.
"""

import warnings

import torch
from common import make_parser, save
from s4former import attention, augmentations, losses, network, settings, steps
from s4former.record import Draws, Vectors
from s4former.reference import Reference


def record_all(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record all groups; each continues the random stream of the one before."""
    augmentations.record_shuffles(reference, vectors, draws)
    augmentations.record_cutmix(reference, vectors, draws)
    losses.record_pseudo_labels(reference, vectors, draws)
    losses.record_unsupervised_losses(reference, vectors, draws)
    losses.record_supervised_loss(reference, vectors, draws)
    losses.record_moving_average(reference, vectors, draws)
    setup = network.Setup(reference, draws)
    network.record_state(vectors, setup)
    network.record_inference(vectors, setup)
    attention.record_group(vectors, setup)
    steps.record_group(vectors, setup)
    settings.record_sampler(reference, vectors)
    settings.record_configs(reference.checkout, vectors)


def main(argv: list[str] | None = None) -> None:
    args = make_parser(__doc__).parse_args(argv)
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    vectors = Vectors()
    record_all(Reference(args.reference), vectors, Draws(args.seed))
    save(args.out / 's4former.npz', vectors)


if __name__ == '__main__':
    main()

"""Make ``css.npz``, vectors of CSS, from a checkout of CSS.

Reference: https://github.com/WangChangqi98/CSS, commit 8aec4a8. The repository has no license: nothing of it
is copied here. The released functions are imported from the checkout; the bodies of the training loops are
read from it when this script runs. The modules in ``css/`` name the files that they execute.

Replaced: torchvision's functions on PIL images, CUDA, and torch.distributed (two ranks run one after the
other). The released code draws from the global generators, which are seeded; what it drew is read back from
its variables.
"""

import torch
from common import load_rule, make_parser, patched, save
from css import contrast, losses, mixing, networks, schedules, steps, views
from css.record import Draws, Vectors
from css.reference import Reference, seed_global_generators


def record_all(reference: Reference, vectors: Vectors, seed: int) -> None:
    """Record all groups; each continues the random streams of the one before."""
    draws = Draws(seed)
    contrast.record_group(reference, vectors, draws, seed)
    steps.record_group(reference, vectors, draws)
    losses.record_unsupervised_loss(reference, vectors, draws)
    losses.record_ohem(reference, vectors, draws)
    schedules.record_ramps(reference, vectors)
    schedules.record_poly(reference, vectors)
    schedules.record_teacher(reference, vectors, draws)
    mixing.record_group(reference, vectors, draws, seed)
    views.record_labeled_views(reference, vectors, draws)
    views.record_strong_view(reference, vectors, draws)
    networks.record_evaluation(reference, vectors, draws)


def main(argv: list[str] | None = None) -> None:
    args = make_parser(__doc__).parse_args(argv)
    torch.set_num_threads(1)
    seed_global_generators(args.seed, python=True)
    vectors = Vectors()
    with patched(torch.Tensor, cuda=lambda tensor, *args, **options: tensor):
        reference = Reference(args.reference)
        record_all(reference, vectors, args.seed)
        networks.record_networks(reference, vectors, load_rule(args.out, args.seed))
    vectors.put_exact('seed', args.seed)
    save(args.out / 'css.npz', vectors)


if __name__ == '__main__':
    main()

"""Channel attention for training. It computes the score map, the keys and the values block by block.

PyTorch's fused kernels do not build the score map either. But they are made for vectors of up to 256 values,
while a channel has one value per position (289 for a crop of 513 pixels). On a CPU with dropout, the fused
kernel builds the map after all. Here, the work is in matrix products, so it runs well on every device.
"""

from typing import Any

import torch
from torch import Tensor

from .attention_blocks import Blocks, Dropout
from .attention_sums import Gradients, RunningSoftmax, add_product

_SCHEMA = '(Tensor query, Tensor source, Tensor key_weight, Tensor value_weight, float dropout, Tensor? seed)'
_BACKWARD_SCHEMA = (
    '(Tensor grad, Tensor query, Tensor source, Tensor key_weight, Tensor value_weight, Tensor out, '
    'Tensor shift, Tensor total, float dropout, Tensor? seed, bool source_grad)'
)


def blocked_attention(
    query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, dropout: float = 0.0
) -> Tensor:
    """Compute dropout(softmax(Q K^T)) V, with keys W_K R_s and values W_V R_s of groups s.

    This is the online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). The
    forward pass stores the output, and the shift and the sum of each query. Both passes compute the keys and
    values of a group, and the weights of a block, when they need them.

    On a CPU, the shift of a row is the mean of its scores, which is known in advance. It grows only if a
    score is too large for ``exp``. On an accelerator, this decision would wait for the device, so the shift
    of a row is its largest score so far.

    Args:
        query (Tensor): (M, N), already scaled. All products have its dtype.
        source (Tensor): (S, D, N), the groups R_s.
        key_weight (Tensor): (O, D), W_K.
        value_weight (Tensor): (O, D), W_V.
        dropout (float): Probability that a weight is dropped, in [0, 1). PyTorch's global generator of the
            CPU gives the seed.

    Returns:
        Tensor: (M, N).
    """
    seed = torch.randint(2**62, (), device='cpu') if dropout else None
    out, _, _ = _attend(query, source, key_weight, value_weight, dropout, seed)
    return out.to(query.dtype)


def _make_dropout(probability: float, seed: Tensor | None, device: torch.device) -> Dropout | None:
    # the seed is on the CPU, so its value is at hand
    return None if seed is None else Dropout(probability, int(seed), device)


def attend(
    query: Tensor,
    source: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    probability: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``blocked_attention`` without autograd.

    Args:
        query, source, key_weight, value_weight: As in ``blocked_attention``.
        probability (float): Dropout probability, in [0, 1).
        seed (Tensor, optional): Scalar int64 on the CPU; None for no dropout.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The output (M, N), and what the backward pass needs of each row: the
        shift and the sum, each (M, 1). All are float32.
    """
    dropout = _make_dropout(probability, seed, query.device)
    with torch.autocast(query.device.type, enabled=False):
        blocks = Blocks(query, source, key_weight, value_weight, buffers=2 if dropout else 1)
        if blocks.on_cpu:
            key_mean = key_weight.float().mean(dim=0) @ source.float().mean(dim=0)
            shift = (query.float() @ key_mean)[:, None].to(query.dtype)
        else:
            shift = torch.full((len(query), 1), -torch.inf, device=query.device)
        state = RunningSoftmax(blocks.query, shift)
        for block in blocks:
            rows = block.rows
            weights = state.weigh_on_cpu(blocks, block) if blocks.on_cpu else state.weigh(blocks, block)
            state.total[rows] += weights.sum(dim=1, keepdim=True, dtype=torch.float32)
            if dropout:
                weights.mul_(dropout.draw(block.number, blocks.buffer(1, rows)))
            add_product(state.weighted[rows], weights, blocks.value)
        out = state.weighted.div_(state.total)
        if dropout:
            out.mul_(dropout.scale)
        out, shift, total = out[:, : query.shape[1]].contiguous(), state.shift.float(), state.total
        if not blocks.on_cpu:
            # exp(scores - shift) / total is a product of two factors; float16 needs both of moderate size
            total = total.sqrt_()
            shift = shift + total.log()
    return out, shift, total


def attend_backward(
    grad: Tensor,
    query: Tensor,
    source: Tensor,
    key_weight: Tensor,
    value_weight: Tensor,
    out: Tensor,
    shift: Tensor,
    total: Tensor,
    probability: float,
    seed: Tensor | None,
    source_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of ``blocked_attention``.

    Args:
        grad (Tensor): (M, N) float32.
        query, source, key_weight, value_weight: As in ``blocked_attention``.
        out, shift, total: The results of ``attend``.
        probability, seed: As in ``attend``.
        source_grad (bool): Whether the source needs a gradient.

    Returns:
        tuple[Tensor, Tensor, Tensor, Tensor]: Gradients of query (M, N), of source (S, D, N) or an empty
        tensor, and of both weights (O, D).
    """
    dropout, dtype = _make_dropout(probability, seed, query.device), query.dtype
    with torch.autocast(query.device.type, enabled=False):
        blocks = Blocks(query, source, key_weight, value_weight, buffers=3 if dropout else 2)
        shift = shift.to(dtype) if blocks.on_cpu else shift
        grad_dot_out = (grad * out).sum(dim=1, keepdim=True).div_(total).to(dtype)
        grad = blocks.pad((grad * ((dropout.scale if dropout else 1.0) / total)).to(dtype))
        grads = Gradients(blocks, source, source_grad)
        for block in blocks:
            rows = block.rows
            if block.first:
                grads.begin_groups()
            weights = blocks.scores(rows).sub_(shift[rows]).exp_()
            grad_scores = torch.mm(grad[rows], blocks.value.T, out=blocks.buffer(1, rows))
            kept = weights
            if dropout:
                mask = dropout.draw(block.number, blocks.buffer(2, rows))
                grad_scores.mul_(mask)
                kept = mask.mul_(weights)
            add_product(grads.value, kept.T, grad[rows])
            grad_scores.sub_(grad_dot_out[rows]).mul_(weights)
            add_product(grads.query[rows], grad_scores, blocks.key)
            add_product(grads.key, grad_scores.T, blocks.query[rows])
            if block.last:
                grads.end_groups(block.groups)
    grad_query = grads.query[:, : query.shape[1]].to(dtype).contiguous()
    of_key, of_value = (total.to(key_weight.dtype) for total in grads.weights)
    return grad_query, grads.source, of_key, of_value


# operators, so that torch.compile neither enters the loops nor breaks the graph at them
_attend = torch.library.custom_op(
    'allspark_mmseg::blocked_attention',
    attend,
    mutates_args=(),
    schema=f'{_SCHEMA} -> (Tensor, Tensor, Tensor)',
)
_attend_backward = torch.library.custom_op(
    'allspark_mmseg::blocked_attention_backward',
    attend_backward,
    mutates_args=(),
    schema=f'{_BACKWARD_SCHEMA} -> (Tensor, Tensor, Tensor, Tensor)',
)


@_attend.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    column = query.new_empty((query.shape[0], 1), dtype=torch.float32)
    return query.new_empty(query.shape, dtype=torch.float32), column, torch.empty_like(column)


@_attend_backward.register_fake
def _(
    grad: Tensor, query: Tensor, source: Tensor, key_weight: Tensor, value_weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_source = torch.empty_like(source) if rest[-1] else source.new_empty(0)
    of_key, of_value = (key_weight.new_empty(key_weight.shape) for _ in range(2))
    return query.new_empty(query.shape), grad_source, of_key, of_value


def _keep_for_backward(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, ctx.dropout, seed = inputs
    ctx.save_for_backward(*tensors, *output, seed)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, seed = ctx.saved_tensors
    source_grad = ctx.needs_input_grad[1]
    query, source, *weights = _attend_backward(grad, *tensors, ctx.dropout, seed, source_grad)
    return query, source if source_grad else None, *weights, None, None


_attend.register_autograd(_backward, setup_context=_keep_for_backward)

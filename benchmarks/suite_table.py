"""The table of the command ``all``."""

from collections.abc import Iterable, Mapping
from typing import Any

from .suite_rows import Row, data_name, gemm_name

WORKERS = 4  # of a data loader, as in the configs
_HEADER = (
    'row', 'time', 'peak', 'images/s', 'TFLOP/s', 'of the limit', 'speed-up', 'memory ratio', 'loader'
)  # fmt: skip


def suite_table(rows: Iterable[Row], results: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the results.

    The limit is the rate of a large matrix product in the same precision. Speed-up and memory ratio compare
    with the plain side in the same precision. The last column is the time in which ``WORKERS`` processes load
    the images of a step, relative to the time of the step; above 100 %, the step waits for them.

    Args:
        rows (Iterable[Row]): The rows.
        results (Mapping): Name -> result of ``measure_row``.

    Returns:
        str: A Markdown table, and below it the rows without a result and their reasons.
    """
    rows = list(rows)
    limits = {
        row.precision: row.flops / results[row.name]['seconds']
        for row in rows
        if row.name == gemm_name(row.precision) and 'seconds' in results.get(row.name, {})
    }
    lines = [f'| {" | ".join(_HEADER)} |', '|---' * len(_HEADER) + '|']
    missing = []
    for row in rows:
        result = results.get(row.name, {'skipped': 'not measured yet'})
        if 'seconds' in result:
            cells = _cells(row, result, results, limits.get(row.precision))
            lines.append(f'| {" | ".join((row.name, *cells))} |')
        else:
            missing += [f'{row.name}: {key}: {result[key]}' for key in ('skipped', 'failed') if key in result]
    return '\n'.join([*lines, *missing])


def _cells(
    row: Row, result: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]], limit: float | None
) -> tuple[str, ...]:
    time, peak = result['seconds'], result['peak_mb']
    rate = row.flops / time
    plain = results.get(row.plain or '', {})
    peaks = (plain.get('peak_mb'), peak)
    loading = _loading_time(row, results)
    return (
        f'{1000 * time:.4g} ms',
        '' if peak is None else f'{peak:.0f} MB',
        f'{sum(row.images) / time:.3g}' if row.images else '',
        f'{rate / 1e12:.3g}' if rate else '',
        f'{rate / limit:.0%}' if rate and limit else '',
        f'{plain["seconds"] / time:.2f}' if 'seconds' in plain else '',
        f'{peaks[0] / peaks[1]:.1f}' if all(peaks) else '',
        f'{loading / time:.0%}' if loading else '',
    )


def _loading_time(row: Row, results: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the seconds in which the workers load the images of a step."""
    per_image: list[Any] = [
        results.get(data_name(view), {}).get('seconds') for view in ('labeled', 'unlabeled')
    ]
    if not row.images or None in per_image:
        return None
    return sum(count * each for count, each in zip(row.images, per_image, strict=True)) / WORKERS

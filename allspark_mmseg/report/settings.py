"""The settings that describe a training, and the versions and the device with which it ran."""

from collections.abc import Iterator, Sequence

from mmengine.config import ConfigDict

from .runs import Run


def settings(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the settings that describe a training, as name and value.

    Args:
        run (Run): The run.

    Yields:
        tuple[str, str]: A setting.
    """
    config = run.config
    model = config.get('model', ConfigDict())
    segmentor = model.get('segmentor', model)
    yield 'method', run.method
    for part in ('backbone', 'decode_head'):
        kind = segmentor.get(part, {}).get('type')
        if kind:
            yield part.replace('_', ' '), str(kind)
    for key, value in model.items():
        if run.semi_supervised and isinstance(value, int | float | str) and key != 'type':
            yield key, str(value)
    optimizer = config.get('optim_wrapper', {}).get('optimizer', {})
    if optimizer:
        yield 'optimizer', f'{optimizer.get("type")}, learning rate {optimizer.get("lr")}'
    for key in ('max_iters', 'max_epochs'):
        if key in config.get('train_cfg', {}):
            yield key, str(config.train_cfg[key])
    if 'crop_size' in config:
        yield 'crop size', ' x '.join(map(str, config.crop_size))
    if 'batch_size' in config.get('train_dataloader', {}):
        yield 'images per step and process', str(config.train_dataloader.batch_size)


def settings_table(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return settings, versions and device by name.

    Args:
        runs (Sequence[Run]): The runs.

    Returns:
        dict[str, list[str]]: Name -> one value for each run; ``''`` if it has none.
    """
    columns = [
        dict(settings(run))
        | {
            'versions': ', '.join(
                f'{key} {value.split(" (")[0]}'
                for key, value in run.log.environment.items()
                if key in ('Python', 'PyTorch', 'MMEngine', 'OpenCV')
            ),
            'device': _device(run),
            'GPU memory': f'{run.memory:.0f} MiB' if run.memory else 'not logged, as on a CPU',
        }
        for run in runs
    ]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = {key: [column.get(key, '') for column in columns] for key in keys}
    return {key: values for key, values in rows.items() if any(values)}


def _device(run: Run) -> str:
    gpus = [value for key, value in run.log.environment.items() if key.startswith('GPU 0')]
    processes = run.log.environment.get('GPU number', '')
    kind = gpus[0] if gpus else 'CPU' if run.log.environment.get('CUDA available') == 'False' else ''
    return f'{kind}, {processes} process{"es" if processes != "1" else ""}' if kind and processes else kind

"""The HTML page of a report: one file without references to others."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import __version__
from .charts import run_charts, score_chart
from .classes import class_table, row_percent, top_confusions
from .collect import Report
from .figures import Gallery
from .runs import Run, settings
from .sheet import ONLY_FIRST, ONLY_LAST

_FOLDER = Path(__file__).parent
_SCRIPTS = ('table.js', 'chart.js', 'matrix.js', 'viewer.js')


@cache
def _environment() -> Environment:
    loader = PackageLoader('allspark_mmseg', 'report')
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render_page(report: Report, galleries: list[Gallery]) -> str:
    """Write the page.

    Args:
        report (Report): The content.
        galleries (list[Gallery]): Validation images; empty if there are none.

    Returns:
        str: The HTML.
    """
    table = class_table(report)
    shown = report.shown()
    names = table.names if table else []
    chart = score_chart(report.groups)
    title = ', '.join(dict.fromkeys(group.name for group in report.groups))
    parts = {
        'runs': True,
        'curves': bool(chart) or any(run.curves for run in report.runs),
        'classes': table is not None,
        'confusion': bool(shown),
        'images': bool(galleries),
        'settings': True,
    }
    return _environment().get_template('page.html.j2').render(
        title=title,
        report=report,
        verdict=report.verdict,
        several=len(report.runs) > 1,
        parts=[name for name, present in parts.items() if present],
        table=table,
        chart=chart.to_dict() if chart else None,
        run_charts=[_run_charts(run) for run in report.runs],
        matrices=[_matrix(each, names) for each in reversed(shown)] if table else [],
        galleries=galleries,
        legend=_legend(report),
        marks=[f'#{red:02x}{green:02x}{blue:02x}' for red, green, blue in (ONLY_FIRST, ONLY_LAST)],
        compared=[each.network.name for each in (shown[:1] + shown[-1:])] if len(shown) > 1 else [],
        settings=_settings(report),
        configs=_configs(report),
        warnings=list(dict.fromkeys(warning for run in report.runs for warning in run.log.warnings)),
        version=__version__,
        made=datetime.now().strftime('%Y-%m-%d %H:%M'),
        style=(_FOLDER / 'page.css').read_text(),
        scripts=[(_FOLDER / name).read_text() for name in _SCRIPTS],
    )


def run_title(run: Run) -> str:
    """Return the name of a run, unique among those of a report: its group and its work dir."""
    return f'{run.name}, {run.work_dir}'


def _run_charts(run: Run) -> dict[str, Any]:
    return {'name': run_title(run), 'charts': [chart.to_dict() for chart in run_charts(run)]}


def _matrix(evaluation: Any, names: list[str]) -> dict[str, Any]:
    return {
        'name': evaluation.network.name,
        'classes': names,
        'percent': row_percent(evaluation.matrix),
        'top': top_confusions(evaluation.matrix, names),
    }


def _legend(report: Report) -> list[tuple[str, str]]:
    if report.dataset is None:
        return []
    meta = report.dataset.metainfo
    colors = ['#{:02x}{:02x}{:02x}'.format(*map(int, color)) for color in meta['palette']]
    return list(zip(meta['classes'], colors, strict=False))


def _settings(report: Report) -> dict[str, list[str]]:
    """Return the settings and versions by name, with one value for each run (``''``: it has none)."""
    columns = [
        dict(settings(run))
        | {
            'versions': ', '.join(
                f'{key} {value.split(" (")[0]}'
                for key, value in run.log.environment.items()
                if key in ('Python', 'PyTorch', 'MMEngine', 'OpenCV')
            ),
            'device': _device(run),
        }
        for run in report.runs
    ]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = {key: [column.get(key, '') for column in columns] for key in keys}
    return {key: values for key, values in rows.items() if any(values)}


def _device(run: Run) -> str:
    gpus = [value for key, value in run.log.environment.items() if key.startswith('GPU 0')]
    processes = run.log.environment.get('GPU number', '')
    kind = gpus[0] if gpus else 'CPU' if run.log.environment.get('CUDA available') == 'False' else ''
    return f'{kind}, {processes} process{"es" if processes != "1" else ""}' if kind and processes else kind


def _configs(report: Report) -> list[tuple[str, str]]:
    """Return name and config of the first run of each group."""
    return [
        (run_title(group.runs[0]), group.runs[0].config_text)
        for group in report.groups
        if group.runs[0].config_text
    ]

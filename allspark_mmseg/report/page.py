"""The HTML page of a report: one file without references to others."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import __version__
from .charts import comparison_charts
from .classes import class_table, row_percent, top_confusions
from .collect import Report
from .figures import Gallery
from .run_charts import run_charts
from .runs import Run
from .selection import describe_gain
from .settings import settings_table
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
    comparisons = comparison_charts(report.groups)
    title = ', '.join(dict.fromkeys(group.name for group in report.groups))
    parts = {
        'runs': True,
        'classes': table is not None,
        'curves': bool(comparisons) or any(run.curves for run in report.runs),
        'confusion': bool(shown),
        'images': bool(galleries),
        'settings': True,
    }
    return (
        _environment()
        .get_template('page.html.j2')
        .render(
            title=title,
            facts=_facts(report),
            report=report,
            verdict=report.verdict,
            parts=[name for name, present in parts.items() if present],
            table=table,
            comparisons=[chart.to_dict() for chart in comparisons],
            run_charts=[_run_charts(run) for run in report.runs],
            matrices=[_matrix(each, names) for each in reversed(shown)] if table else [],
            galleries=galleries,
            legend=_legend(report),
            marks=[f'#{red:02x}{green:02x}{blue:02x}' for red, green, blue in (ONLY_FIRST, ONLY_LAST)],
            gain_note=describe_gain(shown[0], shown[-1]) if len(shown) > 1 else '',
            compared=[each.network.name for each in (shown[:1] + shown[-1:])] if len(shown) > 1 else [],
            settings=settings_table(report.runs),
            configs=_configs(report),
            warnings=list(dict.fromkeys(warning for run in report.runs for warning in run.log.warnings)),
            version=__version__,
            made=datetime.now().strftime('%Y-%m-%d %H:%M'),
            style=(_FOLDER / 'page.css').read_text(),
            scripts=[(_FOLDER / name).read_text() for name in _SCRIPTS],
        )
    )


def _facts(report: Report) -> str:
    facts = [f'{len(report.runs)} run{"s" if len(report.runs) > 1 else ""}']
    if report.dataset is not None:
        facts += [
            f'{len(report.dataset)} validation images',
            f'{len(report.dataset.metainfo["classes"])} classes',
        ]
    return ', '.join(facts)


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


def _configs(report: Report) -> list[tuple[str, str]]:
    """Return name and config of the first run of each group."""
    return [
        (run_title(group.runs[0]), group.runs[0].config_text)
        for group in report.groups
        if group.runs[0].config_text
    ]

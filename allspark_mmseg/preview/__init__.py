"""What the network sees: draws of the training and validation pipelines, their numbers, and a sheet."""

from .draws import Draw, Stream, View, find_streams
from .numbers import ViewNumbers, build_preprocessor, measure
from .page import render_page
from .sections import Cell, Section, make_section
from .sheet import draw_sheet

__all__ = [
    'Cell',
    'Draw',
    'Section',
    'Stream',
    'View',
    'ViewNumbers',
    'build_preprocessor',
    'draw_sheet',
    'find_streams',
    'make_section',
    'measure',
    'render_page',
]

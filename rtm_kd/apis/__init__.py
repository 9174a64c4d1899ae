from .distill import distill
from .export import export
from .report import report
from .test import test
from .train import train

__all__ = ['distill', 'export', 'report', 'test', 'train']

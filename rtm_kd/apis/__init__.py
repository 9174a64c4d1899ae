from .distill import distill
from .report import report
from .test import test
from .train import train

__all__ = ['distill', 'report', 'test', 'train']

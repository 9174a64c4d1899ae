from .distill import distill
from .test import test
from .train import train

__all__ = ['distill', 'test', 'train']

"""What most modules and tools use: configs and errors."""

from .config import load_config
from .errors import UsageError, report_usage_errors, say

__all__ = ['UsageError', 'load_config', 'report_usage_errors', 'say']

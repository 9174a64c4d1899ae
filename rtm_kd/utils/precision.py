"""Whether the CPU computes in bfloat16 natively."""

import functools


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Return whether the processor has AVX512-BF16 or AMX; elsewhere bfloat16 is emulated."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            flags = next((line for line in file if line.startswith('flags')), '')
    except OSError:
        return False
    return bool({'avx512_bf16', 'amx_bf16'} & set(flags.split()))

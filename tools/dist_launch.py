"""torchrun with the exit status of the processes that it launches.

dist_train.sh and dist_test.sh start it. torchrun always fails with a traceback and status 1; this
exits with 143 after a SIGTERM, as clusters expect, and with 2 and no further output after an error
that the tool has already reported in one line.

Example: python tools/dist_launch.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch
"""

import os
import signal
import sys

try:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import determine_local_world_size, parse_args, run
except KeyboardInterrupt:
    # The imports take seconds.
    print('\nstopped', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)

# Exit statuses that the tools use on purpose.
_STATUSES = (2, 128 + signal.SIGTERM)


def main() -> None:
    try:
        words = sys.argv[1:]
        if words in (['-h'], ['--help']):
            print(__doc__)
        args = parse_args(words)
        if not _is_count(args.nproc_per_node):
            _refuse(f'the number of processes must be 1 or more, got {args.nproc_per_node}')
        # Which ends them if this process is killed.
        os.environ['RTM_KD_LAUNCHER'] = str(os.getpid())
        run(args)
    except RuntimeError as error:
        if 'EADDRINUSE' not in str(error):
            raise
        _refuse(f'port {args.master_port} is in use, perhaps by another run; choose one with PORT')
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode in _STATUSES:
            sys.exit(first.exitcode)
        raise


def _is_count(number: str) -> bool:
    try:
        # It may also be "gpu", for as many as there are.
        return determine_local_world_size(number) > 0
    except ValueError:
        return False


def _refuse(message: str) -> None:
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
    main()

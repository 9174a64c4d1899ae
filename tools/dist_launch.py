"""torchrun, ending as the processes that it launches end.

dist_train.sh and dist_test.sh start it. Where torchrun ends with a traceback and status 1
whatever happened, this ends with 143 after a SIGTERM, as clusters expect it, and with 2 and no
more words after an error that the tool has said in one line.

Example: python tools/dist_launch.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch
"""

import signal
import sys

try:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run
except KeyboardInterrupt:
    # The imports take seconds.
    print('\nstopped', file=sys.stderr)
    sys.exit(128 + signal.SIGINT)

# With which the tools end on purpose.
_STATUSES = (2, 128 + signal.SIGTERM)


def main() -> None:
    try:
        words = sys.argv[1:]
        if words in (['-h'], ['--help']):
            print(__doc__)
        run(parse_args(words))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode in _STATUSES:
            sys.exit(first.exitcode)
        raise


if __name__ == '__main__':
    main()

"""What the entry points share: flags that are checked, and errors that are one clear message."""

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from absl import app, flags, logging

from mmjax.data.skipped import TooManyUnreadable
from mmjax.training import PREEMPTED_EXIT, BadLoss, ClusterError, Preempted
from mmjax.training.cluster import leave
from mmjax.training.config import read_config, unknown_field

# What a user can mend: the message says how, and a traceback would only hide it.
EXPECTED = (ValueError, ImportError, OSError, BadLoss, ClusterError, TooManyUnreadable)


def run_command(main: Callable[[], None]) -> None:
    """Parse the flags and call ``main``; ``--verbosity=1`` shows the traceback of an error."""
    app.run(lambda _: _guarded(main), flags_parser=_parse_flags)


def _guarded(main: Callable[[], None]) -> None:
    verbosity = flags.FLAGS["verbosity"]
    if not verbosity.present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells a lot
    try:
        main()
    except Preempted as notice:
        print(notice, file=sys.stderr)
        raise SystemExit(PREEMPTED_EXIT) from notice
    except KeyboardInterrupt as error:
        _end("interrupted; the same command goes on where it can", error)
    except EXPECTED as error:
        if logging.get_verbosity() >= logging.DEBUG:
            traceback.print_exc()
        _end(f"error: {error}", error)
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        lost = isinstance(error, jax.errors.JaxRuntimeError)
        _end("error: another process ended; see its messages" if lost else f"error: {error}", error)


def _end(message: str, error: BaseException) -> NoReturn:
    """Exit with code 1; without waiting for other processes, which would wait for this one."""
    if jax.distributed.is_initialized() or isinstance(error, ClusterError):
        print(message, file=sys.stderr)
        leave(1)
    raise SystemExit(message) from error


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Check the names of configuration fields first: the flags library only says KeyError."""
    argv = list(argv)
    for i, argument in enumerate(argv[:-1]):
        if argument == "--config":  # its value is the next argument
            argv[i : i + 2] = [f"--config={argv[i + 1]}"]
            break
    path = next((a.partition("=")[2] for a in argv if a.startswith("--config=")), None)
    try:
        if path is not None:
            config = read_config(path)
            for argument in argv:
                if argument.startswith("--config."):
                    name = argument.removeprefix("--config.").partition("=")[0]
                    if message := unknown_field(config, name):
                        raise ValueError(message)
        return flags.FLAGS(argv)
    except (ValueError, TypeError, FileNotFoundError, flags.Error) as error:
        raise SystemExit(f"error: {error}") from error

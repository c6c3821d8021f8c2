"""What Lightning and its parser print in every run, silenced; what its callbacks were configured to say is said."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

from sparselit.cli.terminal import say
from sparselit.errors import disk_fault

#: Lightning's folders whose messages answer to a setting: summaries, profiles, finders, ``verbose: true``.
_SPEAKING = ("callbacks", "profilers", "tuner")
#: The logger of ``rank_zero_info``, through which all of Lightning speaks.
_SHARED = "lightning.pytorch.utilities.rank_zero"


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a message is shown: warnings are, and what one of those folders says; how averages are saved is not."""
    path = Path(record.pathname)
    return record.levelno > logging.INFO or (path.parent.name in _SPEAKING and path.stem != "weight_averaging")


class _Spoken(logging.Handler):
    """Says what Lightning only informs of; its own handler shows warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if record.levelno <= logging.INFO:
            say(record.getMessage().strip("\n"))


_SPOKEN = _Spoken()


def _thread_failed(details: threading.ExceptHookArgs) -> None:
    """TensorBoard's writing thread meets a full disk by itself; the main thread meets it again, and says so."""
    if details.exc_value is None or disk_fault(details.exc_value) is None:
        threading.__excepthook__(details)


def quieten() -> None:
    """Silence it for the rest of the process."""
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_failed
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in (*(f"lightning.pytorch.{folder}" for folder in _SPEAKING), _SHARED):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addFilter(_is_wanted)
        logger.addHandler(_SPOKEN)
    for handler in logging.getLogger("lightning.pytorch").handlers:
        handler.setLevel(logging.WARNING)  # the rest would be said twice
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Callbacks do not act outside fit, so their state in the checkpoint is not needed there.
    warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create.*")
    # It holds the run's own checkpoints, which nothing else removes.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # The run says so itself, and which keys do nothing then.
    warnings.filterwarnings("ignore", ".*configure_optimizers` will be overridden by")
    # It then logs rates, and no share of what the device could do.
    warnings.filterwarnings("ignore", "When using the `?ThroughputMonitor")
    # jsonargparse deprecates the methods that Lightning calls; pinned below its version 5.
    warnings.filterwarnings("ignore", r"(?s)\s*(.*was deprecated in v4|By default only one Jsonargparse)")
    # saved_config.py gives such values a text, or refuses them by name.
    warnings.filterwarnings("ignore", r"\s*Unable to serialize instance")
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size` from an ambiguous collection.*")

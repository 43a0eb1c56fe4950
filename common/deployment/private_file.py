"""A key or token that its owner alone may read: one that others may is refused by name, with the command that mends it."""

import stat
from pathlib import Path
from shlex import quote

from common.errors import ConfigError

OTHERS = 0o077  # what a file's mode lets group and world do


def require_private(file: Path, may: str) -> None:
    """Refuse a file that others may read or write.

    Args:
        file: it is there.
        may: what others could do with it, such as "use the site's private key".

    Raises:
        ConfigError: they could; names the file, its mode, and what to run.
        OSError: it cannot be looked at.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & OTHERS:
        raise ConfigError(f"{file}: other users may {may} (mode {mode:04o}). Run: chmod 600 {quote(str(file))}")

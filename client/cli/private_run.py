"""What the verbs about privacy ask for: a planned private run, and a site."""

import argparse
from pathlib import Path

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.errors import ConfigError


def private_run(arguments: argparse.Namespace) -> RunConfig:
    """The planned run (`--config`, `--set`), which must be a private one.

    Raises:
        ConfigError: it is not.
    """
    config = load_config(config_path(arguments.config), tuple(arguments.settings))
    if not config.privacy.enabled:
        raise ConfigError(f"--config {arguments.config}: the run has no privacy (privacy.enabled = false). Name one that has.")
    return config


def existing(path: Path) -> Path:
    """The path, where something is.

    Raises:
        ConfigError: nothing is there.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Name a site's folder or its site.toml.")
    return path

"""The configuration of one run: frozen dataclasses from TOML; a wrong setting is refused by name.

A file under `configs/` holds only what differs from the defaults (`common.config.sections`).
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.earlier import of_today
from common.config.overrides import lay_over
from common.config.requirements import require_consistent
from common.config.sections import Sections
from common.errors import ConfigError
from common.schema import build, check_ranges, dotted_names, plain


@dataclass(frozen=True)
class RunConfig(Sections):
    """One run, whole. Built by `load_config`, checked on construction, travels as JSON."""

    def __post_init__(self) -> None:
        check_ranges(self)
        require_consistent(self)

    def to_json(self) -> str:
        """Canonical JSON text: equal configurations give equal text."""
        return json.dumps(plain(self), sort_keys=True)


def load_config(source: Path, settings: tuple[str, ...] = ()) -> RunConfig:
    """Read a TOML file and lay `key=value` settings over it.

    Args:
        source: the TOML file.
        settings: such as `training.local_epochs=2`; the value is TOML, or bare text. A name that is unique among all sections
            may stand alone: `weights=model.safetensors`, `rounds=3`.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range, named by its dotted key.
    """
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Configuration {source}: cannot be read ({error.strerror}). Name an existing TOML file.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"Configuration {source}: not valid TOML ({error}).") from error
    table, known = of_today(table), list(dotted_names(RunConfig))
    for setting in settings:
        table = lay_over(table, setting, known)
    return config_from_table(table)


def config_from_json(text: str) -> RunConfig:
    """Rebuild a `RunConfig` from `RunConfig.to_json`, with the same checks as a TOML file."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The run configuration is not valid JSON ({error}).") from error
    return config_from_table(table)


def config_from_table(table: dict[str, Any]) -> RunConfig:
    """Build a `RunConfig` from nested plain values; see `load_config` for the errors."""
    config: RunConfig = build(RunConfig, of_today(table))
    return config

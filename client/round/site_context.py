"""Where a node's patients are: the hospital's own site.toml, or in simulation the folder that a request names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.site import SITE_CONFIG
from common.data.cache import default_cache
from common.errors import ConfigError, FederationError
from common.messages.round import Task


@dataclass(frozen=True)
class SiteContext:
    """Where this node's patients are, and where their slices may be kept."""

    name: str
    folder: Path  # a site folder or a site.toml
    cache: Path
    simulated: bool


def find_site_context(task: Task, node_config: Mapping[str, Any]) -> SiteContext:
    """The hospital's own site.toml if the node has one; else, in simulation, the folder that the request names.

    Raises:
        ConfigError: neither is there.
        FederationError: the request names a folder outside the data folder.
    """
    own = node_config.get(SITE_CONFIG)
    if own:  # a hospital's node never opens a folder that a request names
        return SiteContext(_name(Path(str(own))), Path(str(own)), default_cache(), simulated=False)
    if not task.site or not task.data:
        raise ConfigError(f"This node has no site: start it with --node-config '{SITE_CONFIG}=\"/path/to/site.toml\"'.")
    if Path(task.site).name != task.site or task.site in (".", ".."):
        raise FederationError(f"The request's site '{task.site}' is no plain folder name.")
    cache = Path(task.cache) if task.cache else default_cache()
    return SiteContext(task.site, Path(task.data) / task.site, cache, simulated=True)


def home_folder(context: SiteContext) -> Path:
    """Of a hospital: the folder that holds its site.toml."""
    return context.folder.parent if context.folder.suffix == ".toml" else context.folder


def _name(path: Path) -> str:
    """A site's name from the path of its site.toml or folder."""
    folder = path.parent if path.suffix == ".toml" else path
    return folder.resolve().name

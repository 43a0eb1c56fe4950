"""Make a plain `flwr run .` work in this environment: `make setup` runs this once.

By itself Flower would install the app's dependencies anew at run time (slow, and impossible offline) and look for its own
programs on PATH only. A .pth file in the environment sets both at the start of every Python there; what the user has set stays,
and so does the PATH of a hospital's own processes.
"""

import sysconfig
from pathlib import Path

LINE = (
    "import os, sysconfig; "
    "os.environ.setdefault('FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION', '1'); "
    "os.environ.setdefault('FLWR_TELEMETRY_ENABLED', '0'); "
    "os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0'); "
    "b = sysconfig.get_path('scripts'); p = os.environ.get('PATH', '').split(os.pathsep); "
    "b in p or 'FEDMRI_SITE' in os.environ or os.environ.update(PATH=os.pathsep.join([b, *p]))\n"
)


def prepare_environment() -> Path:
    """Write the .pth file into this interpreter's site-packages."""
    file = Path(sysconfig.get_path("purelib")) / "fedmri_flower.pth"
    file.write_text(LINE, encoding="utf-8")
    return file


if __name__ == "__main__":
    prepare_environment()

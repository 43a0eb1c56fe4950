"""What every measurement on hospitals is asked for."""

import argparse
from pathlib import Path


def hospital_options(description: str | None, config: str = "demo") -> argparse.ArgumentParser:
    """A parser of OUT, --config, --set and --data.

    Args:
        description: of the program, as it stands in its source.
        config: that it takes where none is named.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default=config)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, required=True, help="folder of hospitals")
    return parser

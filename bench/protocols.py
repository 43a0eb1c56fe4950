"""`fedmri-sim protocols` on small phantoms: what each costs in processor seconds, and its MCC.

    python bench/protocols.py OUT.json

Eighteen external patients: the MCC says that a protocol learns, not which is better.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from common.files import write_atomic
from simulation.cli import main
from simulation.phantom.hospitals import write_hospitals

SETTINGS = ("--set", "min_sites=1", "--set", "bootstrap=0", "--shots", "4", "--draws", "3", "--epochs", "2", "--rates", "1e-3")


def measure(folder: Path) -> dict[str, dict[str, float | None]]:
    """MCC, seconds and trained parameters by protocol, on multi-modality tokens."""
    write_hospitals(folder / "data", sites=2, patients=18, external=18, seed=5)
    given = (
        "--data",
        str(folder / "data"),
        "--external",
        "external",
        "--out",
        str(folder / "out"),
        "--cache",
        str(folder / "cache"),
    )
    if main(["protocols", *given, *SETTINGS, "--federated"]):
        raise SystemExit("fedmri-sim protocols failed.")
    rows = json.loads((folder / "out" / "protocols.json").read_text())["rows"]
    tokens = [row for row in rows if row["input"] == rows[0]["input"] and not row["why"]]
    return {
        row["protocol"]: {
            "mcc": row["measures"]["mcc"]["value"],
            "seconds": round(row["seconds"], 2),
            "parameters": row["parameters"],
        }
        for row in tokens
    }


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        write_atomic(Path(sys.argv[1]), (json.dumps(measure(Path(folder)), indent=1) + "\n").encode())

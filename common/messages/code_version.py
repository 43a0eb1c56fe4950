"""Hash of the code that a process runs: server and sites must run the same, but a SuperLink may hand out different checkouts."""

import hashlib
from functools import cache
from pathlib import Path

# What travels to hospitals: what `client.app` and `server.app` import, no more and no less. A hospital approves it, and each
# round compares hashes. `fab-include` in pyproject.toml says the same; tests/server/deployment/test_wall.py holds both to the
# imports. A glob stands for a room that travels whole.
TRAVELS = (
    "client/__init__.py",
    "client/app.py",
    "client/policy/*.py",
    "client/privacy/__init__.py",
    "client/privacy/budget.py",
    "client/privacy/ledger.py",
    "client/privacy/likeness.py",
    "client/privacy/marks.py",
    "client/privacy/people.py",
    "client/round/*.py",
    "common/*.py",
    "common/adapters/*.py",
    "common/aggregation/*.py",
    "common/config/*.py",
    "common/data/__init__.py",
    "common/data/augmentation.py",
    "common/data/cache.py",
    "common/data/cases.py",
    "common/data/covariates.py",
    "common/data/dataset.py",
    "common/data/gate/*.py",
    "common/data/harmonisation.py",
    "common/data/fingerprint.py",
    "common/data/forgetting.py",
    "common/data/headings.py",
    "common/data/holdout.py",
    "common/data/known_files.py",
    "common/data/lesions.py",
    "common/data/planes.py",
    "common/data/rows.py",
    "common/data/site_table.py",
    "common/data/slices.py",
    "common/data/suppression.py",
    "common/data/survey.py",
    "common/data/twins.py",
    "common/data/volumes.py",
    "common/data/whole.py",
    "common/decoders/*.py",
    "common/evaluation/**/*.py",
    "common/low_rank/*.py",
    "common/messages/*.py",
    "common/metrics/*.py",
    "common/models/**/*.py",
    "common/objectives/*.py",
    "common/pooling/*.py",
    "common/privacy/__init__.py",
    "common/privacy/accountants.py",
    "common/privacy/accounting.py",
    "common/privacy/charge.py",
    "common/privacy/gradients.py",
    "common/privacy/noise.py",
    "common/privacy/optimizer.py",
    "common/privacy/site_level.py",
    "common/secure/*.py",
    "common/tasks/*.py",
    "common/training/*.py",
    "server/__init__.py",
    "server/app.py",
    "server/events/*.py",
    "server/report/__init__.py",
    "server/report/results.py",
    "server/run/*.py",
    "server/strategy/*.py",
)


@cache
def code_hash() -> str:
    """SHA-256 of the code that this process runs: `tree_hash` of the folder that it imports FedMRI from."""
    return tree_hash(Path(__file__).resolve().parents[2])


def tree_hash(root: Path) -> str:
    """SHA-256 over names and bytes of the source files under `root` that travel: in a checkout and in its bundle the same."""
    digest = hashlib.sha256()
    for name in travelling(root):
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    return digest.hexdigest()


def travelling(root: Path) -> list[str]:
    """Names of the source files under `root` that travel, sorted."""
    return sorted({path.relative_to(root).as_posix() for pattern in TRAVELS for path in root.glob(pattern)})

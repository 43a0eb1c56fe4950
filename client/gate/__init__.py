"""Guards the app: holds what comes in and what leaves against the policy, and runs approved bundles only. Installed code."""

import common.deployment  # noqa: F401  before gRPC is imported

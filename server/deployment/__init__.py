"""The coordinator's programs, registry and settings."""

import common.deployment  # noqa: F401  before gRPC is imported

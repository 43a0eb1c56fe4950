"""A site that is deployed: its folder, its keys, its programs."""

import common.deployment  # noqa: F401  before gRPC is imported

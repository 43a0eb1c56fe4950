"""Programs kept alive, and the commands of Flower.

These programs start others. A process in which gRPC runs (Flower's, health checks) then forks, and gRPC's own handlers of forks,
of no use where the child runs another program at once, have crashed (grpc/grpc 43055; here: a fault in `cygrpc` at a start).
gRPC reads the variable when it is first imported, so every package that starts programs imports this one first.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

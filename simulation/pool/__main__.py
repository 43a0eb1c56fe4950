"""`python -m simulation.pool`: the fork server. Bound to its parent first, for its imports take seconds."""

import sys

from common.deployment.supervisor import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    from simulation.pool.fork_server import main  # after the line above

    sys.exit(main())

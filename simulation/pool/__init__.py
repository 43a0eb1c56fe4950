"""The pool engine: virtual sites in resident worker processes, under the very ServerApp and ClientApp that Flower runs.

    fedmri-sim (engine) -> fork server -> the run's server, which talks (grid) to the workers
                                       -> worker, worker, ...

All code is imported once, by the fork server, and shared by what it forks. Messages are Flower's own, as bytes of its protocol.
"""

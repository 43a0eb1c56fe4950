"""The ServerApp: Flower's door to `server.run.federate`."""

import os

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.run.federate import federate, leave_error
from server.run.plan import read_plan, run_folder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation; the results, or error.json, are in the run folder."""
    torch.set_num_threads(os.cpu_count() or 1)  # the sites rest while the server evaluates
    out = run_folder(context.run_config, context.run_id)
    with leave_error(out):
        federate(grid, read_plan(context.run_config, out))

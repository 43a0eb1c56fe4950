"""The ServerApp: Flower's door to `server.run.federate`."""

import os

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.run.ending import leave_error
from server.run.federate import federate
from server.run.hand_out import folder_of, hand_out
from server.run.plan import read_plan, read_settings, run_folder
from server.run.survey import read_survey_plan, survey, wanted

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation, a survey or a hand-out; the results, or error.json, are in the run folder."""
    torch.set_num_threads(os.cpu_count() or 1)  # the sites rest while the server evaluates
    out = run_folder(context.run_config, context.run_id)
    with leave_error(out):
        if wanted(context.run_config):
            survey(grid, read_survey_plan(context.run_config, read_settings(context.run_config)), out)
            return
        if folder := folder_of(context.run_config):
            hand_out(grid, read_survey_plan(context.run_config, ()), folder, out)
            return
        federate(grid, read_plan(context.run_config, out))

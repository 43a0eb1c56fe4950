"""Names of what a finished run leaves in its folder, for all who read or write it."""

MODEL_NAME = "model.safetensors"
CHECKPOINTS = "checkpoints"
REPORT_NAME = "report.json"  # its presence marks a run that succeeded
STATUS_NAME = "status.json"

"""Names in a run's folder that more than one room reads or writes."""

MODEL_NAME = "model.safetensors"
CHECKPOINTS = "checkpoints"
REPORT_NAME = "report.json"  # its presence marks a run that succeeded
STATUS_NAME = "status.json"

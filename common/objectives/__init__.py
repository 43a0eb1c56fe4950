"""The terms of the loss, one a file: settings and mechanism side by side, known to a configuration by a line in `terms`.

Configurations import these files, and commands that parse one must not wait for torch: so it is imported inside functions here.
"""

"""How the site's SuperExec starts a gate: by asking the process that has imported its code; where it cannot, by the launcher."""

import json
import logging
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG, TASK_TYPE_TO_COMMAND, TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor

from client.gate.fork_request import TAKEN
from client.gate.polling import pause_after
from client.gate.stamp import file_stamp
from common.deployment.supervisor import die_with_parent

CLIENT_APP = "flwr-clientapp"
PRELOADED = "client.gate.preloaded"
SECONDS = 60.0  # for its word; it may have just begun, on a machine that is busy
logger = logging.getLogger("fedmri.superexec")


class PreloadedExecutor(SubprocessExecutor):
    """Flower's executor, whose ClientApps are answered by gates that are forked.

    Where the launcher that it was started beside is changed, that launcher is what starts gates from then on.
    """

    def __init__(self) -> None:
        self.launcher = Path(TASK_TYPE_TO_COMMAND[TaskType.CLIENT_APP])
        self.stamp = file_stamp(self.launcher)
        self.control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.launched = time.monotonic()
        self._start()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Have a gate answer."""
        self.launched = time.monotonic()
        if spec.task_type != TaskType.CLIENT_APP or file_stamp(self.launcher) != self.stamp:
            return super().launch(spec)
        arguments = [CLIENT_APP, TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type], spec.runtime_api_address]
        arguments += ["--token", spec.token]
        arguments += ["--insecure"] if spec.insecure else []
        arguments += ["--root-certificates", spec.root_certificates_path] if spec.root_certificates_path else []
        arguments += ["--parent-pid", str(spec.parent_pid)] if spec.parent_pid is not None else []
        return LaunchResult.accepted() if self._forked(arguments) else super().launch(spec)

    def reconcile(self) -> None:
        """Wait before the next look for a request, the longer the longer none has come."""
        time.sleep(pause_after(time.monotonic() - self.launched))

    def close(self) -> None:
        """End the process; gates that are at work see by themselves that SuperExec is gone."""
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            self.process.terminate()

    def _forked(self, arguments: list[str]) -> bool:
        """Whether a gate was forked; a process that is gone, or gives no answer, is ended, and another started."""
        try:
            if self.control is None:
                raise OSError
            self.control.settimeout(SECONDS)
            self.control.send(json.dumps(arguments).encode())
            if answer := self.control.recv(1):
                return answer == TAKEN
        except OSError:
            pass
        logger.warning("The gate's preloaded process is gone: this request's gate is started by itself.")
        self._start()
        return False

    def _start(self) -> None:
        """Start the process that gates are forked from; without it all goes on as by the launcher."""
        if self.process is not None:
            with suppress(OSError):
                self.process.kill()
            self.process.wait()
        if self.control is not None:
            self.control.close()
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", PRELOADED, str(its.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                    preexec_fn=die_with_parent,  # noqa: PLW1509  one system call
                )
            except OSError:
                logger.exception("The gate's preloaded process cannot be started.")
                self.process = None

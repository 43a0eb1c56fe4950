"""The files for systemd and containers, as far as they can be checked without a registry: no image is built here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOY = CHECKOUT / "configs" / "deploy"
UNITS = {"fedmri-server.service": "fedmri-server start", "fedmri-site.service": "fedmri-site start"}
CONTAINERS = {"Containerfile.server": "server.cli.main", "Containerfile.site": "client.cli.main"}


@pytest.mark.parametrize(("unit", "command"), UNITS.items())
def test_systemd_takes_the_unit(tmp_path, unit, command) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed here")
    text = (DEPLOY / unit).read_text()
    assert f"/opt/fedmri/.venv/bin/{command} /var/lib/" in text
    file = tmp_path / unit
    file.write_text(re.sub(r"/opt/fedmri/\.venv/bin/fedmri-\w+", sys.executable, text))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if unit in line]
    assert said == []
    if "Failed to" not in done.stderr:  # as it says where it has no cgroup to look at
        assert done.returncode == 0, done.stderr


def test_systemd_would_find_a_wrong_line(tmp_path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed here")
    file = tmp_path / "wrong.service"
    file.write_text("[Service]\nExecStart=/bin/true\nProtectSystems=strict\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)
    assert "ProtectSystems" in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_hardened_and_writes_into_its_own_folder_only(unit) -> None:
    lines = (DEPLOY / unit).read_text().splitlines()
    folder = "/var/lib/" + unit.removesuffix(".service").removesuffix("-server")
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "Restart=on-failure", "CapabilityBoundingSet="):
        assert line in lines
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [f"ReadWritePaths={folder}"]
    assert not any(line.startswith("User=root") for line in lines)


@pytest.mark.parametrize(("name", "module"), CONTAINERS.items())
def test_all_that_a_container_copies_is_there_and_it_runs_unprivileged(name, module) -> None:
    text = (DEPLOY / name).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    sources = [source for line in lines if line[0] == "COPY" for source in line[1:-1]]
    assert {"pyproject.toml", "constraints.txt", "common", "configs"} <= set(sources)
    assert [source for source in sources if not (CHECKOUT / source).exists()] == []
    assert lines[0][0] == "ARG"
    assert re.fullmatch(r"BASE=docker\.io/flwr/super(link|node):1\.41\.0-py3\.11-ubuntu22\.04", lines[0][1])
    assert lines[1] == ["FROM", "${BASE}"]
    assert [line[1] for line in lines if line[0] == "USER"][-1] == "app"
    assert f'ENTRYPOINT ["python", "-m", "{module}"]' in text


def test_the_base_images_are_of_the_version_that_is_pinned() -> None:
    pinned = re.search(r"^flwr==(.+)$", (CHECKOUT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    for name in CONTAINERS:
        assert f":{pinned[1]}-py3.11" in (DEPLOY / name).read_text()


def test_compose_builds_these_files_and_hardens_both() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"server", "site"}
    for service in compose["services"].values():
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == CHECKOUT
        assert (context / service["build"]["dockerfile"]).is_file()
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        named = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith("$")}
        assert named <= set(compose["volumes"])
    assert "ports" not in compose["services"]["site"]  # a hospital opens none


def test_no_file_names_a_machine() -> None:
    names = {os.uname().nodename, str(Path.home())} - {"localhost", "/root", "/"}
    for file in DEPLOY.iterdir():
        assert not any(name in file.read_text() for name in names), file.name

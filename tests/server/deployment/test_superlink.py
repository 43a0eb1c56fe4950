"""Who may call the Control API, without a process: the same rules against the real one are in test_deployment.py."""

import hashlib
from pathlib import Path

import pytest
from fastapi import HTTPException, Request
from flwr.supercore.error import BearerAuthenticationError, FlowerError
from flwr.superlink import main as flower
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

from common.errors import ConfigError
from server.deployment.credentials import ADMIN, OBSERVER, make_tokens, read_tokens, token_file
from server.deployment.observe import observe
from server.deployment.superlink import PLACE, RoleAccess, ask_for_credentials

TOKENS = {ADMIN: "a" * 43, OBSERVER: "o" * 43}
ACCESS = RoleAccess(NoOpControlAuthnPlugin(), {role: hashlib.sha256(token.encode()).digest() for role, token in TOKENS.items()})


def call(path: str, *headers: str) -> bool:
    """Whether a call is let through."""
    scope = {"type": "http", "method": "POST", "path": f"/v1/control/{path}", "query_string": b"", "server": ("localhost", 1)}
    request = Request(scope | {"headers": [(b"authorization", header.encode()) for header in headers]})
    return bool(ACCESS(request).account_name)


def test_an_admin_does_all_and_an_observer_lists() -> None:
    for path in ("list-nodes", "list-runs"):
        assert call(path, f"Bearer {TOKENS[ADMIN]}")
        assert call(path, f"Bearer {TOKENS[OBSERVER]}")
    for path in ("register-node", "unregister-node", "start-run", "stop-run", "stream-logs", "list-nodes/", "anything-new"):
        assert call(path, f"Bearer {TOKENS[ADMIN]}")
        with pytest.raises(FlowerError):
            call(path, f"Bearer {TOKENS[OBSERVER]}")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        ("Bearer ",),
        (f"Bearer {'a' * 42}",),
        (f"Bearer {'a' * 44}",),
        ("a" * 43,),
        (f"Basic {'a' * 43}",),
        (f"Bearer {'a' * 43}", f"Bearer {'a' * 43}"),
    ],
)
def test_who_shows_no_token_is_refused(headers: tuple[str, ...]) -> None:
    with pytest.raises((BearerAuthenticationError, HTTPException)):
        call("list-nodes", *headers)


def test_tokens_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    first = read_tokens(tmp_path)
    make_tokens(tmp_path)
    assert read_tokens(tmp_path) == first
    assert first[ADMIN] != first[OBSERVER]
    assert all(token_file(tmp_path, role).stat().st_mode & 0o077 == 0 for role in first)


def test_a_token_that_others_may_read_is_refused_by_name(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    (tmp_path / "observer.toml").write_text('superlink = "127.0.0.1:1"')
    file = token_file(tmp_path, OBSERVER)
    file.chmod(0o644)
    for refused in (lambda: read_tokens(tmp_path), lambda: observe(tmp_path)):
        with pytest.raises(ConfigError, match=rf"{file}: other users may .*chmod 600 {file}"):
            refused()


def test_nothing_is_served_where_flower_has_moved_the_place_or_a_token_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"admin.token: cannot be read"):
        ask_for_credentials(tmp_path)
    make_tokens(tmp_path)
    token_file(tmp_path, OBSERVER).write_text("short")
    with pytest.raises(ConfigError, match="32 characters"):
        ask_for_credentials(tmp_path)
    monkeypatch.delattr(flower, PLACE)
    with pytest.raises(ConfigError, match="asks for accounts in another way"):
        ask_for_credentials(tmp_path)

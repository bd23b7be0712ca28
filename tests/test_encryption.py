"""AES-GCM, and the cipher that the environment names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replayflow import AesGcmCipher, Cipher
from replayflow.codec.sealed import opened, sealed
from replayflow.encryption import cipher_of_environment
from replayflow.errors import CipherError, SealedError
from tests.ciphers import ToyCipher

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def needs_library() -> None:
    pytest.importorskip("cryptography")


@pytest.mark.usefixtures("needs_library")
class TestAesGcm:
    def test_what_is_sealed_opens_in_its_context_alone(self) -> None:
        cipher = AesGcmCipher({"k": OLD})
        assert isinstance(cipher, Cipher)
        for value in (b"", b"value", "text", "ü"):
            envelope = sealed(value, cipher, b"here")
            assert opened(envelope, cipher, b"here") == value
            with pytest.raises(SealedError, match="key 'k' does not open"):
                opened(envelope, cipher, b"there")

    def test_no_two_seals_are_the_same(self) -> None:
        cipher = AesGcmCipher({"k": OLD})
        assert len({sealed(b"value", cipher, b"") for _ in range(100)}) == 100

    def test_what_was_changed_does_not_open(self) -> None:
        cipher = AesGcmCipher({"k": OLD})
        envelope = sealed(b"value", cipher, b"")
        for place in range(4, len(envelope)):
            changed = bytearray(envelope)
            changed[place] ^= 1
            with pytest.raises(SealedError, match="key 'k' does not open"):
                opened(bytes(changed), cipher, b"")

    def test_the_last_key_seals_and_all_open(self) -> None:
        old, both = AesGcmCipher({"old": OLD}), AesGcmCipher({"old": OLD, "new": NEW})
        assert opened(sealed(b"value", old, b""), both, b"") == b"value"
        with pytest.raises(SealedError, match="with key 'new', which is not at hand"):
            opened(sealed(b"value", both, b""), old, b"")

    def test_no_text_has_a_key_in_it(self) -> None:
        cipher = AesGcmCipher({"old": OLD, "new": NEW})
        assert repr(cipher) == "<AesGcmCipher 'new', 2 keys>"
        with pytest.raises(CipherError) as refused:
            AesGcmCipher({"short": b"twelve bytes"})
        assert "twelve" not in str(refused.value)

    @pytest.mark.parametrize("keys", [{}, {"k": b""}, {"k": b"x" * 31}, {"k": "x" * 32}, {"": OLD}, {"a\n": OLD}])
    def test_keys_that_are_none_are_refused(self, keys: dict[str, bytes]) -> None:
        with pytest.raises(CipherError):
            AesGcmCipher(keys)


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(CipherError, match=r"pip install 'replayflow\[encryption\]'"):
        AesGcmCipher({"k": OLD})


def test_the_library_is_not_imported_before_it_is_wanted() -> None:
    command = [sys.executable, "-c", "import sys, replayflow; print('cryptography' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


# ---- the environment


def named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("REPLAYFLOW_CIPHER", text)


def test_without_the_variable_there_is_no_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLAYFLOW_CIPHER", raising=False)
    assert cipher_of_environment() is None


def test_the_variable_names_a_cipher_or_what_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "tests.ciphers:ToyCipher")
    assert isinstance(cipher_of_environment(), ToyCipher)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tests.ciphers", "it is module:object"),
        (":ToyCipher", "it is module:object"),
        ("tests.ciphers:", "it is module:object"),
        ("tests.no_such:Cipher", "cannot be imported"),
        ("tests.ciphers:Missing", "has no such object"),
        ("tests.ciphers:os", "`seal` and `open`"),
        ("tests.ciphers:os.getpid", "`seal` and `open`"),
    ],
)
def test_a_variable_that_names_no_cipher_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    named(monkeypatch, text)
    with pytest.raises(CipherError, match=problem):
        cipher_of_environment()


def test_a_file_of_the_command_line_is_sealed_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replayflow.store import SqliteStore, store_at

    named(monkeypatch, "tests.ciphers:ToyCipher")
    store = store_at(tmp_path / "hub.db")
    assert isinstance(store, SqliteStore)
    assert isinstance(store._cipher, ToyCipher)

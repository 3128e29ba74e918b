"""The Hub's word: what its API announces counts, and what a server says beside it is trusted with nothing."""

import contextlib
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx import InputError, from_pretrained, push_to_hub
from nfnet_eqx.zoo import _fetch
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, WEIGHTS, refusal, tiny


def flipped(content: bytes) -> bytes:
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


def false_etag(kind: str, content: bytes) -> str:
    """An ETag that is not the announced hash of a file: no hash at all, or the hash of other bytes."""
    blob = b"blob %d\0" % len(content) + content
    digests = {"sha256": hashlib.sha256(content).hexdigest(), "git": hashlib.sha1(blob).hexdigest()}
    return (digests | {"32 digits": "0123456789abcdef" * 2, "a word": "etag-of-a-mirror"})[kind]


@pytest.mark.parametrize("kind", ["sha256", "git", "32 digits", "a word"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_what_the_api_announces_counts_whatever_the_server_calls_its_bytes(
    name: str, kind: str, hub: Hub, tmp_path: Path
) -> None:
    true, cache = hub.files("me/x")[name], tmp_path / "cache"
    hub.tamper("me/x", name, flipped(true))
    hub.lie("me/x", name, etag=false_etag(kind, flipped(true)))
    assert refusal(hub, cache).startswith(f"me/x: {name} is not the file that the Hub announced")
    hub.tamper("me/x", name, true)  # another name for the right bytes is no fault
    assert from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=cache).source.commit == hub.commit("me/x")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_load_from_the_cache_still_knows_what_the_api_announced(name: str, hub: Hub, tmp_path: Path) -> None:
    true = hub.files("me/x")[name]
    hub.lie("me/x", name, etag=false_etag("32 digits", b""))
    folder = pull("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache").folder
    (folder / name).resolve().write_bytes(flipped(true))
    with pytest.raises(InputError, match=f"me/x: {name} is not the file that the Hub announced"):
        from_pretrained("me/x", endpoint="http://127.0.0.1:9", cache_dir=tmp_path / "cache")


def test_an_interrupted_download_leaves_nothing_that_is_opened_unlooked_at(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, cache = hub.files("me/x")[WEIGHTS], tmp_path / "cache"
    hub.tamper("me/x", WEIGHTS, flipped(true))
    hub.lie("me/x", WEIGHTS, etag=false_etag("sha256", flipped(true)))
    with monkeypatch.context() as patch:
        patch.setattr(_fetch, "check_hashes", lambda *_, **__: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            pull("me/x", endpoint=hub.endpoint, cache_dir=cache)
    assert _fetch.cached("me/x", None, cache) is not None
    assert f"{WEIGHTS} is not the file that the Hub announced" in refusal(hub, cache)


def test_a_note_that_is_broken_is_told_and_written_again(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pull("me/x", endpoint=hub.endpoint, cache_dir=cache)
    (note,) = cache.rglob("nfnet_eqx/*.json")
    for text in ("[1]", "{", '{"config.json": 1}', '{"config.json": "../../x"}'):
        note.write_text(text)
        with pytest.raises(InputError, match="json: is broken; `nfnet-eqx pull me/x` writes it again"):
            from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=cache)
    pull("me/x", endpoint=hub.endpoint, cache_dir=cache)
    assert from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=cache).source.sha256


def test_the_clients_own_tools_see_nothing_strange_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    commit = pull("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache").origin.commit
    found = scan_cache_dir(tmp_path / "cache")
    assert not found.warnings
    found.delete_revisions(str(commit)).execute()
    assert not list((tmp_path / "cache").glob("models--*"))


def test_what_another_client_fetched_is_compared_with_the_hash_that_the_cache_has_kept(
    hub: Hub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("config.json", WEIGHTS):
        path = hf_hub_download("me/x", name, cache_dir=tmp_path / "cache", endpoint=hub.endpoint)
    assert from_pretrained("me/x", cache_dir=tmp_path / "cache").source.sha256
    Path(path).resolve().write_bytes(flipped(hub.files("me/x")[WEIGHTS]))
    with pytest.raises(InputError, match="is not the file that the Hub announced"):
        from_pretrained("me/x", cache_dir=tmp_path / "cache")


ELSEWHERE = ("../../../../elsewhere", "../elsewhere", "/elsewhere", "..", "a/b", "a\\b", "")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize("etag", ELSEWHERE)
def test_no_etag_makes_the_client_write_outside_of_its_cache(etag: str, name: str, hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b" / "cache"
    hub.lie("me/x", name, etag=etag)
    assert "refused" in refusal(hub, cache) or not etag
    assert {path.name for path in tmp_path.iterdir()} <= {"hub", "a"}
    assert not list(tmp_path.rglob("*elsewhere*"))


@pytest.mark.parametrize("commit", [*ELSEWHERE, "0" * 40, "main"])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_no_commit_makes_the_client_write_outside_of_its_cache(
    commit: str, name: str, hub: Hub, tmp_path: Path
) -> None:
    cache = tmp_path / "a" / "b" / "cache"
    hub.lie("me/x", name, commit=commit)
    assert refusal(hub, cache).startswith("me/x: changed while it was fetched; try again")
    assert {path.name for path in tmp_path.iterdir()} <= {"hub", "a"}
    assert not list(tmp_path.rglob("*elsewhere*"))


def test_a_commit_that_lacks_a_file_makes_the_client_write_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.fail(
        "HEAD .*/config.json",
        404,
        times=None,
        headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "../../../elsewhere"},
    )
    assert "lost a file meanwhile" in refusal(hub, tmp_path / "a" / "cache")
    assert not list(tmp_path.rglob("*elsewhere*"))


@pytest.mark.parametrize("revision", ["../../elsewhere", "/elsewhere", "a/../../b", "a b", "a\\b", "a:b", "\x00"])
def test_a_revision_that_can_be_none_is_refused_unasked(revision: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can be no branch, tag or commit"):
        pull("me/x", revision=revision, endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="can be no branch, tag or commit"):
        push_to_hub(tiny(), "me/x", revision=revision, endpoint=hub.endpoint, token="hf_me")
    assert hub.requests == []


STRANGERS = "hf_" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGH"


def test_a_token_that_the_server_repeats_is_not_printed(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.users["hf_secretsecret"] = "me"
    said = []
    for status in (400, 401, 403, 404, 409, 418, 429, 500, 503):
        for pattern in ("/api/models/", "HEAD .*config.json", "GET .*/resolve/"):
            hub.restore()
            hub.fail(pattern, status, times=None, message=f"Bearer hf_secretsecret or {STRANGERS} is not welcome")
            with pytest.raises(InputError) as refused:
                from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token="hf_secretsecret")
            said.append(str(refused.value))
    assert any("Bearer [token] or [token] is not welcome" in line for line in said)
    assert "secretsecret" not in caplog.text + str(said) and STRANGERS not in caplog.text + str(said)


def test_a_token_in_the_answer_to_a_push_is_not_printed(hub: Hub, tmp_path: Path) -> None:
    hub.users["hf_secretsecret"] = "me"
    hub.fail("/api/models/me/x/commit/", 403, message="hf_secretsecret may not write")
    with pytest.raises(InputError, match="403 .*\\[token\\] may not write"):
        push_to_hub(tiny(), "me/x", endpoint=hub.endpoint, token="hf_secretsecret")
    answer = {"commitUrl": f"{hub.endpoint}/me/x/commit/hf_secretsecret", "commitOid": "0" * 40}
    hub.say("/api/models/me/x/commit/", json.dumps(answer).encode())
    assert "secretsecret" not in push_to_hub(tiny(), "me/x", endpoint=hub.endpoint, token="hf_secretsecret")


@pytest.mark.parametrize("name", ["hf_secretsecret/../x", "../hf_secretsecret"])
def test_a_token_in_the_name_of_a_file_is_not_printed(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.users["hf_secretsecret"] = "me"
    hub.add("me/names", {name: b"{}"})
    with pytest.raises(InputError, match="the repository lists '.*\\[token\\].*', a name that leads out of it"):
        pull("me/names", endpoint=hub.endpoint, cache_dir=tmp_path, token="hf_secretsecret")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("id", "sha", "siblings", "private", "gated", "tags", "cardData", "lastModified", "createdAt", "safetensors")


@hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3),
    file=st.dictionaries(st.sampled_from(("rfilename", "blobId", "lfs", "size")), JSON),
)
def test_whatever_the_api_says_is_opened_or_refused(
    changes: dict[str, Any], file: dict[str, Any], hub: Hub, tmp_path: Path
) -> None:
    names = ("config.json", WEIGHTS)
    answer = {"id": "me/x", "sha": hub.commit("me/x"), "siblings": [{"rfilename": name} | file for name in names]}
    hub.restore()
    hub.say("/api/models/", json.dumps(answer | changes).encode())
    with contextlib.suppress(InputError):
        from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / secrets.token_hex(4))


@hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.data())
def test_whatever_config_the_hub_sends_is_opened_or_refused(
    data: st.DataObject, repos: dict[str, dict[str, bytes]], hub: Hub, tmp_path: Path
) -> None:
    config = json.loads(repos[data.draw(st.sampled_from(("me/x", TIMM)))]["config.json"])
    parts = [part for part in (config, *config.values()) if isinstance(part, dict)]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)
    hub.add("me/odd", repos["me/x"] | {"config.json": json.dumps(config).encode()})
    with contextlib.suppress(InputError):
        from_pretrained("me/odd", endpoint=hub.endpoint, cache_dir=tmp_path / secrets.token_hex(4))


ODD_HEADERS = (
    {"X-Linked-Size": "999999999999999"},
    {"X-Linked-Size": "9" * 500},
    {"X-Linked-Size": "-5"},
    {"Location": "http://["},
    {"Location": "x:y"},
    {"X-Xet-Hash": "../../elsewhere", "X-Xet-Refresh-Route": "/x"},
    {"Content-Encoding": "gzip"},
)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
@pytest.mark.parametrize("headers", ODD_HEADERS, ids=str)
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_whatever_a_server_says_of_a_file_is_opened_or_refused(
    name: str, headers: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    hub.false["me/x", name] = headers
    with contextlib.suppress(InputError):
        from_pretrained("me/x", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("*elsewhere*"))


@pytest.mark.parametrize("question", ["preupload", "commit/", "validate-yaml"])
def test_whatever_the_api_says_to_a_push_is_understood_or_refused(question: str, hub: Hub, tmp_path: Path) -> None:
    for body in (b"null", b'{"files": [{}]}', b'{"commitUrl": 5, "commitOid": 7}'):
        hub.restore()
        hub.say(question, body)
        with contextlib.suppress(InputError):
            push_to_hub(tiny(), "me/new", revision=secrets.token_hex(4), endpoint=hub.endpoint, token="hf_me")

"""The Hub of the tests, asked by the real client."""

import hashlib
import http.client
import json
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_hf_file_metadata,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import Hub

WEIGHTS = bytes(range(256)) * 8192  # two megabytes
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub/deep/notes.txt": b"hello"}
CARD = b"---\nlibrary_name: nfnet-eqx\nlicense: mit\ntags: [jax]\n---\n# Mine\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token="hf_me")


def as_(hub: Hub, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def asked(hub: Hub) -> list[str]:
    """The requests so far, without the one that a process makes at most once a day."""
    found = [line for line in hub.requests if "agent-harnesses" not in line]
    hub.requests.clear()
    return found


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def request(hub: Hub, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Without the client, which refuses some things itself."""
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc)
    try:
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, headers, encode_chunked=headers.get("Transfer-Encoding") == "chunked")
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


# Downloads


def test_a_cold_download_asks_twice_a_warm_one_once_and_a_commit_never(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    commit = hub.add("org/x", FILES)
    path = Path(api.hf_hub_download("org/x", "model.safetensors", cache_dir=tmp_path / "c"))
    assert path.read_bytes() == WEIGHTS and path.parent.name == commit
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    where = "/org/x/resolve/main/model.safetensors"
    assert asked(hub) == [f"HEAD {where}", f"GET {where}"]
    api.hf_hub_download("org/x", "model.safetensors", cache_dir=tmp_path / "c")
    assert asked(hub) == [f"HEAD {where}"]
    api.hf_hub_download("org/x", "model.safetensors", revision=commit, cache_dir=tmp_path / "c")
    assert asked(hub) == []
    assert set(hub.authorized) <= {"me"} | {None}


def test_small_files_are_known_by_gits_hash_and_large_ones_by_sha256(hub: Hub) -> None:
    hub.add("org/x", FILES | {"large.txt": WEIGHTS})
    tags = {
        name: get_hf_file_metadata(hf_hub_url("org/x", name, endpoint=hub.endpoint)).etag
        for name in ("config.json", "model.safetensors", "large.txt")
    }
    assert tags["config.json"] == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert tags["model.safetensors"] == tags["large.txt"] == hashlib.sha256(WEIGHTS).hexdigest()


def test_a_snapshot_holds_all_files_and_asks_once_when_warm(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    commit = hub.add("org/x", FILES)
    folder = Path(api.snapshot_download("org/x", cache_dir=tmp_path / "c"))
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FILES
    first = asked(hub)
    assert first[:2] == [
        "GET /api/models/org/x/revision/main",
        f"GET /api/models/org/x/tree/{commit}?recursive=true&expand=false",
    ]
    files = {f"{method} /org/x/resolve/{commit}/{name}" for name in FILES for method in ("HEAD", "GET")}
    assert set(first[2:]) == files and len(first) == 8
    api.snapshot_download("org/x", cache_dir=tmp_path / "c")
    assert asked(hub) == ["GET /api/models/org/x/revision/main"]


def test_a_download_goes_on_where_it_was_cut(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.add("org/x", FILES)
    hub.cut("GET .*/model.safetensors", after=1_000_000)
    path = api.hf_hub_download("org/x", "model.safetensors", cache_dir=tmp_path / "c")
    assert Path(path).read_bytes() == WEIGHTS
    assert [line.split()[0] for line in asked(hub)] == ["HEAD", "GET", "GET"]


@pytest.mark.parametrize(
    "span, part",
    [("bytes=10-19", slice(10, 20)), ("bytes=2097000-", slice(2097000, None)), ("bytes=-7", slice(-7, None))],
)
def test_a_range_is_answered_with_that_part(span: str, part: slice, hub: Hub) -> None:
    hub.add("org/x", FILES)
    code, headers, body = request(hub, "GET", "/org/x/resolve/main/model.safetensors", Range=span)
    assert (code, body) == (206, WEIGHTS[part])
    start, stop, _ = part.indices(len(WEIGHTS))
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(WEIGHTS)}"
    assert request(hub, "GET", "/org/x/resolve/main/config.json", Range="bytes=2-")[0] == 416


def test_what_is_not_there_is_told_by_kind(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.add("org/x", FILES)
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("org/nothing", "config.json", cache_dir=tmp_path / "c")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("org/x", "config.json", revision="v9", cache_dir=tmp_path / "c")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/x", "nothing.json", cache_dir=tmp_path / "c")
    missing = try_to_load_from_cache("org/x", "nothing.json", cache_dir=tmp_path / "c", revision=hub.commit("org/x"))
    assert missing is not None and not isinstance(missing, str), "the client remembers what is not there"
    assert api.file_exists("org/x", "config.json") and not api.file_exists("org/x", "nothing.json")
    assert api.repo_exists("org/x") and not api.repo_exists("org/nothing")
    assert request(hub, "GET", "/nothing")[0] == 404


# Who may do what


def test_a_private_repository_is_there_for_its_owner_only(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.add("me/x", FILES, private=True)
    assert api.model_info("me/x").private
    for token, code in (("hf_stranger", 404), (False, 401)):
        with pytest.raises(RepositoryNotFoundError) as refused:
            as_(hub, token).model_info("me/x")
        assert status(refused) == code
        with pytest.raises(RepositoryNotFoundError):
            as_(hub, token).hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "c")
        assert list(as_(hub, token).list_models()) == []
    assert [model.id for model in api.list_models()] == ["me/x"]


def test_a_gated_repository_is_seen_by_all_and_read_by_few(hub: Hub, tmp_path: Path) -> None:
    hub.add("me/x", FILES, gated=True)
    for token, code in (("hf_stranger", 403), (False, 401)):
        assert as_(hub, token).model_info("me/x").gated == "auto"
        with pytest.raises(GatedRepoError) as refused:
            as_(hub, token).auth_check("me/x")
        assert status(refused) == code
        with pytest.raises(GatedRepoError):
            as_(hub, token).hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "c")
    hub.granted.add(("stranger", "me/x"))
    as_(hub, "hf_stranger").hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "c")
    as_(hub, "hf_me").auth_check("me/x", write=True)


def test_a_token_that_nobody_has_opens_nothing(hub: Hub) -> None:
    hub.add("me/x", FILES)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as refused:
        as_(hub, "hf_wrong").model_info("me/x")
    assert status(refused) == 401 and not isinstance(refused.value, RepositoryNotFoundError)
    assert as_(hub, "hf_me").whoami()["name"] == "me"


@pytest.mark.parametrize("token, code", [("hf_stranger", 403), (False, 401)])
def test_who_may_not_write_changes_nothing(token: str | bool, code: int, hub: Hub) -> None:
    commit = hub.add("me/x", FILES)
    other = as_(hub, token)
    add = CommitOperationAdd("a", b"1")
    for call in (
        lambda: other.create_commit("me/x", [add], commit_message="m"),
        lambda: other.create_repo("me/y"),
        lambda: other.delete_repo("me/x"),
        lambda: other.create_branch("me/x", branch="b"),
        lambda: other.create_tag("me/x", tag="t"),
        lambda: other.update_repo_settings("me/x", private=True),
        lambda: other.auth_check("me/x", write=True),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            call()
        assert status(refused) == code
    assert request(hub, "POST", "/api/models/me/x/commit/main", b"{}")[0] == 401
    assert (hub.commit("me/x"), hub.repos()) == (commit, ["me/x"])
    refs = other.list_repo_refs("me/x")
    assert [ref.name for ref in refs.branches] == ["main"] and refs.tags == []


# Uploads


def test_a_repository_is_made_once(hub: Hub, api: HfApi) -> None:
    url = api.create_repo("me/x", private=True)
    assert (url.repo_id, url) == ("me/x", f"{hub.endpoint}/me/x")
    assert api.create_repo("me/x", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("me/x")
    assert status(refused) == 409
    assert api.create_repo("bare").repo_id == "me/bare"
    api.update_repo_settings("me/x", visibility="public", gated="manual")
    info = api.model_info("me/x")
    assert (info.private, info.gated, info.siblings) == (False, "auto", [])
    api.delete_repo("me/x")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/x")
    assert hub.repos() == ["me/bare"]


def test_a_folder_is_uploaded_in_one_commit_and_not_again(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    for name, content in FILES.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    api.create_repo("me/x")
    asked(hub)
    done = api.upload_folder(repo_id="me/x", folder_path=tmp_path / "mine")
    assert asked(hub) == ["POST /api/models/me/x/preupload/main", "POST /api/models/me/x/commit/main"]
    assert hub.files("me/x") == FILES
    assert (done.oid, done) == (hub.commit("me/x"), f"{hub.endpoint}/me/x/commit/{done.oid}")
    assert len(hub.history("me/x")) == 2, "the one that made the repository, and this one"
    assert api.upload_folder(repo_id="me/x", folder_path=tmp_path / "mine").oid == done.oid
    assert len(hub.history("me/x")) == 2


def test_a_commit_adds_changes_and_deletes(hub: Hub, api: HfApi) -> None:
    hub.add("me/x", FILES | {"old/a": b"1", "old/b": b"2"})
    operations = [
        CommitOperationAdd("config.json", b"[]"),
        CommitOperationAdd("new", b""),
        CommitOperationDelete("sub/deep/notes.txt"),
        CommitOperationDelete("old/"),
    ]
    api.create_commit("me/x", operations, commit_message="all at once", commit_description="long")
    assert hub.files("me/x") == {"config.json": b"[]", "new": b"", "model.safetensors": WEIGHTS}
    last = api.list_repo_commits("me/x")[0]
    assert (last.title, last.message, last.authors) == ("all at once", "long", ["me"])
    before = hub.commit("me/x")
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("nothing", "me/x")
    assert hub.commit("me/x") == before


def test_a_commit_on_another_parent_is_refused(hub: Hub, api: HfApi) -> None:
    first = hub.add("me/x", FILES)
    add = [CommitOperationAdd("a", b"1")]
    second = api.create_commit("me/x", add, commit_message="m", parent_commit=first).oid
    again = [CommitOperationAdd("a", b"2")]
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit("me/x", again, commit_message="m", parent_commit=first)
    assert status(refused) == 412
    assert hub.history("me/x") == [second, first]


def test_a_pull_request_changes_its_own_ref(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    main = hub.add("me/x", FILES)
    done = api.create_commit("me/x", [CommitOperationAdd("a", b"1")], commit_message="m", create_pr=True)
    assert (done.pr_url, done.pr_revision) == (f"{hub.endpoint}/me/x/discussions/1", "refs/pr/1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "b").write_bytes(b"2")
    stranger = as_(hub, "hf_stranger")
    done = stranger.upload_folder(repo_id="me/x", folder_path=tmp_path / "mine", create_pr=True)
    assert done.pr_revision == "refs/pr/2"
    assert hub.files("me/x", "refs/pr/1") == FILES | {"a": b"1"}
    assert hub.files("me/x", "refs/pr/2") == FILES | {"b": b"2"}
    assert hub.history("me/x") == [main]
    pulls = api.list_repo_refs("me/x", include_pull_requests=True).pull_requests or []
    assert [(ref.name, ref.target_commit) for ref in pulls] == [
        (ref, hub.commit("me/x", ref)) for ref in ("refs/pr/1", "refs/pr/2")
    ]
    api.hf_hub_download("me/x", "a", revision="refs/pr/1", cache_dir=tmp_path / "c")


def test_branches_and_tags_are_made_moved_and_deleted(hub: Hub, api: HfApi) -> None:
    first = hub.add("me/x", FILES)
    api.create_branch("me/x", branch="with/slash")
    api.create_branch("me/x", branch="with/slash", exist_ok=True)
    api.create_tag("me/x", tag="v1", revision="with/slash")
    second = api.create_commit("me/x", [CommitOperationAdd("a", b"")], commit_message="m", revision="with/slash").oid
    hub.tag("me/x", "v2", "with/slash")
    assert (hub.commit("me/x"), hub.commit("me/x", "v1"), hub.commit("me/x", "v2")) == (first, first, second)
    assert hub.add("me/x", {"b": b""}, revision="with/slash") == hub.commit("me/x", "with/slash")
    refs = api.list_repo_refs("me/x")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first, "v2": second}
    for call in (
        lambda: api.create_branch("me/x", branch="with/slash"),
        lambda: api.create_tag("me/x", tag="v1"),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            call()
        assert status(refused) == 409
    api.delete_branch("me/x", branch="with/slash")
    api.delete_tag("me/x", tag="v1")
    for revision in ("with/slash", "v1"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("me/x", revision=revision)
    assert hub.commit("me/x", second) == second


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "", "a//b"])
def test_a_name_that_leads_out_is_refused_in_a_commit_and_not_by_add(name: str, hub: Hub, api: HfApi) -> None:
    before = hub.add("me/x", {"good": b""})
    lines = [
        {"key": "header", "value": {"summary": "m"}},
        {"key": "file", "value": {"path": "a", "content": ""}},
        {"key": "file", "value": {"path": name, "content": ""}},
    ]
    body = "\n".join(map(json.dumps, lines))
    assert request(hub, "POST", "/api/models/me/x/commit/main", body, Authorization="Bearer hf_me")[0] == 400
    assert hub.history("me/x") == [before] and hub.files("me/x") == {"good": b""}
    hub.add("me/x", {name: b"evil"})
    assert name in api.list_repo_files("me/x")


def test_a_body_may_come_in_chunks(hub: Hub) -> None:
    hub.add("me/x", {"good": b""})
    lines = [
        {"key": "header", "value": {"summary": "m"}},
        {"key": "file", "value": {"path": "a", "content": "MTIz"}},
    ]
    pieces = "\n".join(map(json.dumps, lines)).encode()
    chunks = iter([pieces[:5], pieces[5:60], pieces[60:]])
    about = {"Authorization": "Bearer hf_me", "Transfer-Encoding": "chunked"}
    assert request(hub, "POST", "/api/models/me/x/commit/main", chunks, **about)[0] == 200
    assert hub.files("me/x")["a"] == b"123"


def test_a_commit_that_breaks_off_changes_nothing(hub: Hub) -> None:
    before = hub.add("me/x", {"good": b""})
    lines = [
        {"key": "header", "value": {"summary": "m"}},
        {"key": "file", "value": {"path": "a", "content": "MTIz"}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    about = f"Authorization: Bearer hf_me\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", urlsplit(hub.endpoint).port)) as connection:
        connection.sendall(b"POST /api/models/me/x/commit/main HTTP/1.1\r\n" + about + body)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "it closes the connection without an answer"
    assert hub.history("me/x") == [before]


def test_a_card_with_broken_metadata_is_refused(hub: Hub, api: HfApi) -> None:
    before = hub.add("me/x", FILES)
    api.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id="me/x")
    assert ModelCard(hub.files("me/x")["README.md"].decode()).data.license == "mit"
    broken = {
        b"---\nlicense: [mit\n---\n": "expected",
        b"---\n- a list\n---\n": "must be a mapping",
        b"---\ntags: [1]\n---\n": '"tags" must be',
        b"---\nmodel-index:\n- name: x\n---\n": '"model-index\\[0\\].results" is required',
    }
    for card, message in broken.items():
        with pytest.raises(ValueError, match=f"Invalid metadata in README.md.\n- .*{message}"):
            api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="me/x")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# Mine", path_in_repo="README.md", repo_id="me/x")
    assert len(hub.history("me/x")) == 3 and hub.history("me/x")[-1] == before


# What is there


def test_a_model_is_described_with_its_files(hub: Hub, api: HfApi) -> None:
    commit = hub.add("me/x", FILES | {"README.md": CARD})
    info = api.model_info("me/x", files_metadata=True)
    assert (info.id, info.sha, info.author, info.library_name) == ("me/x", commit, "me", "nfnet-eqx")
    assert info.card_data.license == "mit" and info.tags == ["nfnet-eqx", "jax", "license:mit"]
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    assert {name: file.size for name, file in files.items()} == {
        "README.md": len(CARD),
        **{name: len(content) for name, content in FILES.items()},
    }
    assert files["config.json"].lfs is None
    assert files["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()


def test_the_tree_lists_files_and_folders(hub: Hub, api: HfApi) -> None:
    first = hub.add("me/x", FILES)
    hub.add("me/x", {"config.json": b"[]"})
    assert [entry.path for entry in api.list_repo_tree("me/x")] == ["config.json", "model.safetensors", "sub"]
    assert [entry.path for entry in api.list_repo_tree("me/x", "sub", recursive=True)] == [
        "sub/deep",
        "sub/deep/notes.txt",
    ]
    assert api.list_repo_files("me/x") == sorted(FILES)
    weights, folder = api.get_paths_info("me/x", ["model.safetensors", "sub", "nothing"], expand=True)
    assert weights.lfs.size == len(WEIGHTS) and weights.last_commit.oid == first and folder.path == "sub"
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("me/x", "nothing"))


def test_models_are_found(hub: Hub, api: HfApi) -> None:
    hub.add("me/x", FILES | {"README.md": CARD})
    hub.add("org/nfnet_f0", FILES)

    def found(**query: Any) -> list[str]:
        return [model.id for model in api.list_models(**query)]

    assert found() == ["me/x", "org/nfnet_f0"]
    assert found(limit=1) == found(author="me") == found(filter=["nfnet-eqx", "license:mit"]) == ["me/x"]
    assert found(search="NFNet") == ["org/nfnet_f0"]
    assert found(search="NFNet", author="me") == []


# Faults


def test_a_planned_error_comes_as_often_as_was_said(hub: Hub, api: HfApi) -> None:
    hub.add("me/x", FILES)
    hub.fail("GET /api/models/me/x$", 418, times=2, headers={"X-Request-Id": "mine"}, message="out of tea")
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="out of tea") as refused:
            api.model_info("me/x")
        assert status(refused) == 418 and refused.value.request_id == "mine"
    api.model_info("me/x")
    hub.fail("GET", 500, times=None)
    hub.restore()
    api.model_info("me/x")


def test_a_dropped_request_does_nothing(hub: Hub, api: HfApi) -> None:
    before = hub.add("me/x", FILES)
    hub.drop("POST .*/commit/")
    with pytest.raises(Exception, match="Server disconnected") as broken:
        api.create_commit("me/x", [CommitOperationAdd("a", b"1")], commit_message="m")
    assert type(broken.value).__name__ == "RemoteProtocolError"
    assert hub.commit("me/x") == before


def test_other_bytes_than_announced_are_served(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.add("me/x", FILES)
    hub.tamper("me/x", "config.json", b"[]")
    path = Path(api.hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "c"))
    assert path.read_bytes() == b"[]" and path.resolve().name == hashlib.sha1(b"blob 2\0{}").hexdigest()


def test_an_answer_is_held_back_and_does_not_outlive_the_hub(hub: Hub, tmp_path: Path) -> None:
    with Hub(tmp_path / "another") as slow:
        slow.add("me/x", FILES)
        slow.delay("model.safetensors", 0.2)
        slow.delay("config.json", 60)
        assert request(slow, "GET", "/me/x/resolve/main/model.safetensors")[2] == WEIGHTS
        hanging = http.client.HTTPConnection(urlsplit(slow.endpoint).netloc)
        hanging.request("GET", "/me/x/resolve/main/config.json")
    hanging.close()


def test_a_fault_of_the_hub_itself_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError), Hub(tmp_path / "another") as hub:
        assert request(hub, "POST", "/api/repos/create", b"no json", Authorization="Bearer hf_me")[0] == 501


def test_a_large_file_is_never_whole_in_memory(hub: Hub, tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        hub.add("me/x", {"large.bin": tmp_path / "large"})
        connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc)
        connection.request("GET", "/me/x/resolve/main/large.bin")
        answer = connection.getresponse()
        count = 0
        while piece := answer.read(1 << 20):
            count += len(piece)
        connection.close()
        oid = hub.store.repos["me/x"].find("main").files["large.bin"].sha256
        with (tmp_path / "large").open("rb") as file:
            assert request(hub, "PUT", f"/lfs/{oid}", file)[0] == 200
        assert count == size and tracemalloc.get_traced_memory()[1] < size // 4
    finally:
        tracemalloc.stop()

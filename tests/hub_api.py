"""What the Hub of the tests answers: the endpoints that huggingface_hub's client and the `hf` command call."""

import base64
import dataclasses
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_card import look_at, metadata, tags
from tests.hub_store import Blob, Commit, Repo, Store, git_sha1

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_MODEL = rf"/api/models/{_REPO}"
_REVISION = r"(?P<revision>[^/]+)"

# Each endpoint is the method of `Api` that is named last.
_ROUTES = [
    (re.compile(f"{method} {path}"), name)
    for method, path, name in (
        ("(HEAD|GET)", rf"/{_REPO}/resolve/{_REVISION}/(?P<file>.+)", "resolve"),
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("POST", "/api/repos/create", "create_repo"),
        ("DELETE", "/api/repos/delete", "delete_repo"),
        ("GET", "/api/models", "list_models"),
        ("GET", rf"{_MODEL}(/revision/{_REVISION})?", "model_info"),
        ("GET", rf"{_MODEL}/tree/{_REVISION}(/(?P<folder>.+))?", "tree"),
        ("POST", rf"{_MODEL}/paths-info/{_REVISION}", "paths_info"),
        ("GET", rf"{_MODEL}/commits/{_REVISION}", "commits"),
        ("GET", rf"{_MODEL}/refs", "refs"),
        ("GET", rf"{_MODEL}/auth-check(?P<write>/write)?", "auth_check"),
        ("PUT", rf"{_MODEL}/settings", "settings"),
        ("POST", rf"{_MODEL}/branch/(?P<branch>[^/]+)", "create_branch"),
        ("POST", rf"{_MODEL}/tag/{_REVISION}", "create_tag"),
        ("DELETE", rf"{_MODEL}/(?P<kind>branch|tag)/(?P<name>[^/]+)", "delete_ref"),
        ("POST", rf"{_MODEL}/discussions", "open_pull_request"),
        ("GET", rf"{_MODEL}/discussions/(?P<number>\d+)", "pull_request"),
        ("POST", rf"{_MODEL}/preupload/{_REVISION}", "preupload"),
        ("POST", rf"{_MODEL}/commit/{_REVISION}", "commit_files"),
        ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("POST", rf"/{_REPO}\.git/info/lfs/verify", "lfs_verify"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    )
]


@dataclasses.dataclass
class Request:
    """What a client sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: io.BufferedReader
    user: str | None

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.url).query)

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")

    def json(self) -> Any:
        return json.load(self.body)


@dataclasses.dataclass
class Answer:
    """What it gets: a body, or a part of it."""

    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | Path = b""
    part: slice | None = None

    @classmethod
    def of(cls, found: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> "Answer":
        return cls(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(found).encode())


class Refused(Exception):
    """An answer with an error; `code` is what the client chooses the class of its exception by."""

    def __init__(
        self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None, **body: Any
    ) -> None:
        super().__init__(message)
        line = " ".join(message.split()).encode("ascii", "backslashreplace").decode()
        about = {key: value for key, value in (("X-Error-Code", code), ("X-Error-Message", line)) if value}
        about |= headers or {}
        self.answer = Answer.of({"error": message, **body}, status, about)


class Api:
    """The endpoints, as functions of what is stored."""

    endpoint: str
    store: Store
    granted: set[tuple[str, str]]
    lfs_from: int | None
    tampered: dict[tuple[str, str], bytes]
    false: dict[tuple[str, str], Mapping[str, str]]

    def answer(self, request: Request) -> Answer:
        path = urlsplit(request.url).path
        for pattern, name in _ROUTES:
            if match := pattern.fullmatch(f"{request.method} {path}"):
                given = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                try:
                    found = getattr(self, name)(request, **given)
                except Refused as refused:
                    return refused.answer
                return found if isinstance(found, Answer) else Answer.of(found)
        return Refused(404, "there is no such page").answer

    # Who may do what

    def _readable(self, request: Request, repo: str) -> Repo:
        found = self.store.repos.get(repo)
        if found is None or found.private and request.user != found.owner:
            raise Refused(404 if request.user else 401, "Repository not found", "RepoNotFound")
        return found

    def _open(self, request: Request, repo: str) -> Repo:
        """A repository whose files the user may read: everyone sees what a gated one has, and few get it."""
        found = self._readable(request, repo)
        if found.gated and request.user != found.owner and (request.user, repo) not in self.granted:
            raise Refused(403 if request.user else 401, f"Access to model {repo} is restricted", "GatedRepo")
        return found

    def _writable(self, request: Request, repo: str, proposal: bool = False) -> Repo:
        """A repository that the user may change; who may read it may propose a change."""
        found = self._readable(request, repo)
        self._check_namespace(request, request.user or "" if proposal else found.owner)
        return found

    def _check_namespace(self, request: Request, namespace: str) -> None:
        if request.user is None:
            raise Refused(401, "Invalid username or password.")
        if request.user != namespace:
            raise Refused(403, f"You don't have the rights to write under the namespace {namespace!r}")

    def _at(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Reading

    def resolve(self, request: Request, repo: str, revision: str, file: str) -> Answer:
        commit = self._at(self._open(request, repo), revision)
        headers = {"X-Repo-Commit": commit.id}
        blob = commit.files.get(file)
        if blob is None:
            raise Refused(404, "Entry not found", "EntryNotFound", headers)
        headers |= {"ETag": f'"{blob.etag(file)}"', "Accept-Ranges": "bytes"}
        if blob.is_lfs(file):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(blob.size)}
        headers |= self.false.get((repo, file), {})
        if request.method == "HEAD":
            return Answer(200, headers, blob.path)
        body = self.tampered.get((repo, file), blob.path)
        size = blob.size if isinstance(body, Path) else len(body)
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if span is None:
            return Answer(200, headers, body)
        first, last = span.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            return Answer(416, {"Content-Range": f"bytes */{size}"})
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return Answer(206, headers, body, slice(start, stop))

    def model_info(self, request: Request, repo: str, revision: str = "main") -> dict[str, Any]:
        found = self._readable(request, repo)
        commit = self._at(found, revision)
        siblings = []
        for name, blob in sorted(commit.files.items()):
            siblings.append({"rfilename": name})
            if request.flag("blobs"):
                siblings[-1] |= {"size": blob.size, "blobId": blob.git_oid(name)}
                if blob.is_lfs(name):
                    lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
                    siblings[-1] |= {"lfs": lfs}
        card = _card(commit)
        return self._summary(found, commit, card) | {"siblings": siblings, "cardData": card, "disabled": False}

    def _summary(self, repo: Repo, commit: Commit, card: dict[str, Any]) -> dict[str, Any]:
        found = {
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.owner,
            "sha": commit.id,
            "createdAt": repo.created,
            "lastModified": commit.date,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "downloads": 0,
            "likes": 0,
            "tags": tags(card),
        }
        return found | {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}

    def list_models(self, request: Request) -> list[dict[str, Any]]:
        query = request.query
        wanted = set(query.get("filter", []) + query.get("pipeline_tag", []))
        author, search = query.get("author", [""])[0], query.get("search", [""])[0].lower()
        models = []
        for repo in list(self.store.repos.values()):
            if (repo.private and request.user != repo.owner) or author not in ("", repo.owner):
                continue
            commit = repo.find("main")
            if commit and search in repo.id.lower():
                models.append(self._summary(repo, commit, _card(commit)))
        models = [model for model in models if wanted <= set(model["tags"])]
        return models[: int(query.get("limit", ["1000"])[0])]

    def tree(self, request: Request, repo: str, revision: str, folder: str = "") -> list[dict[str, Any]]:
        found = self._readable(request, repo)
        commit = self._at(found, revision)
        prefix = folder.rstrip("/") + "/" if folder else ""
        names = {name for name in commit.files if name.startswith(prefix)}
        if folder and not names:
            raise Refused(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        entries = names | {above for name in names for above in _folders(name) if above.startswith(prefix)}
        if not request.flag("recursive"):
            entries = {entry for entry in entries if "/" not in entry[len(prefix) :]}
        return [_entry(found, commit, name, request.flag("expand")) for name in sorted(entries)]

    def paths_info(self, request: Request, repo: str, revision: str) -> list[dict[str, Any]]:
        found = self._readable(request, repo)
        commit = self._at(found, revision)
        form = parse_qs(request.body.read().decode())
        there = commit.files.keys() | {above for name in commit.files for above in _folders(name)}
        paths = [path.rstrip("/") for path in form.get("paths", [])]
        expand = form.get("expand", ["false"])[0].lower() == "true"
        return [_entry(found, commit, path, expand) for path in paths if path in there]

    def commits(self, request: Request, repo: str, revision: str) -> list[dict[str, Any]]:
        found = self._readable(request, repo)
        return [
            {
                "id": commit.id,
                "title": commit.title,
                "message": commit.message,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in found.history(self._at(found, revision))
        ]

    def refs(self, request: Request, repo: str) -> dict[str, list[dict[str, str]]]:
        found = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for ref, commit in self._readable(request, repo).refs.items():
            kind, name = ref.removeprefix("refs/").split("/", 1)
            key = {"heads": "branches", "tags": "tags", "pr": "pullRequests"}[kind]
            found[key].append({"name": ref if kind == "pr" else name, "ref": ref, "targetCommit": commit})
        return found

    def auth_check(self, request: Request, repo: str, write: str = "") -> dict[str, Any]:
        self._writable(request, repo) if write else self._open(request, repo)
        return {}

    def whoami(self, request: Request) -> dict[str, Any]:
        if request.user is None:
            raise Refused(401, "Invalid username or password.")
        token = {"displayName": "test", "role": "write"}
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "id": request.user, "name": request.user, "orgs": [], "auth": auth}

    # Repositories and refs

    def create_repo(self, request: Request) -> Answer:
        asked = request.json()
        self._check_namespace(request, asked.get("organization") or request.user or "")
        if asked.get("type", "model") != "model":
            raise Refused(400, "only models are kept here")
        id = f"{request.user}/{asked['name']}"
        url = {"url": f"{self.endpoint}/{id}", "name": id, "id": id}
        with self.store.lock:
            if id in self.store.repos:
                raise Refused(409, "You already created this model repo", **url)
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            repo = Repo(id, private, gated=False)
            repo.commit("refs/heads/main", {}, None, "initial commit", str(request.user))
            self.store.repos[id] = repo
        return Answer.of(url)

    def delete_repo(self, request: Request) -> dict[str, Any]:
        asked = request.json()
        repo = self._writable(request, f"{asked.get('organization') or request.user}/{asked['name']}")
        del self.store.repos[repo.id]
        return {}

    def settings(self, request: Request, repo: str) -> dict[str, Any]:
        found, asked = self._writable(request, repo), request.json()
        if "visibility" in asked or "private" in asked:
            found.private = asked.get("visibility") == "private" or bool(asked.get("private"))
        if "gated" in asked:
            found.gated = bool(asked["gated"])
        return {"private": found.private, "gated": "auto" if found.gated else False}

    def create_branch(self, request: Request, repo: str, branch: str) -> dict[str, Any]:
        found, start = self._writable(request, repo), request.json().get("startingPoint") or "main"
        return self._point(found, f"refs/heads/{branch}", self._at(found, start))

    def create_tag(self, request: Request, repo: str, revision: str) -> dict[str, Any]:
        found = self._writable(request, repo)
        return self._point(found, f"refs/tags/{request.json()['tag']}", self._at(found, revision))

    def _point(self, repo: Repo, ref: str, commit: Commit) -> dict[str, Any]:
        with self.store.lock:
            if ref in repo.refs:
                raise Refused(409, f"Reference {ref} already exists")
            repo.refs[ref] = commit.id
        return {}

    def delete_ref(self, request: Request, repo: str, kind: str, name: str) -> dict[str, Any]:
        found = self._writable(request, repo)
        ref = f"refs/heads/{name}" if kind == "branch" else f"refs/tags/{name}"
        if ref == "refs/heads/main":
            raise Refused(403, "The main branch cannot be deleted")
        if found.refs.pop(ref, None) is None:
            raise Refused(404, f"Reference {ref} does not exist", "RevisionNotFound")
        return {}

    def open_pull_request(self, request: Request, repo: str) -> dict[str, Any]:
        found, asked = self._writable(request, repo, proposal=True), request.json()
        if not asked.get("pullRequest"):
            raise Refused(400, "there are no discussions here, only pull requests")
        with self.store.lock:
            return {"num": self._new_pull_request(found, asked["title"], self._at(found, "main"))}

    def _new_pull_request(self, repo: Repo, title: str, base: Commit) -> int:
        repo.pull_titles.append(title)
        repo.refs[f"refs/pr/{len(repo.pull_titles)}"] = base.id
        return len(repo.pull_titles)

    def pull_request(self, request: Request, repo: str, number: str) -> dict[str, Any]:
        found = self._readable(request, repo)
        if f"refs/pr/{number}" not in found.refs:
            raise Refused(404, "there is no such pull request")
        return {
            "title": found.pull_titles[int(number) - 1],
            "num": int(number),
            "createdAt": found.created,
            "status": "draft",
            "repo": {"name": repo, "type": "model"},
            "isPullRequest": True,
            "events": [],
            "changes": {"base": "refs/heads/main"},
            "filesWithConflicts": False,
        }

    # Writing files

    def validate_yaml(self, request: Request) -> Answer:
        errors, warnings = ([{"message": text} for text in texts] for texts in look_at(request.json()["content"]))
        return Answer.of({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def preupload(self, request: Request, repo: str, revision: str) -> dict[str, Any]:
        proposal = request.flag("create_pr") or revision.startswith("refs/pr/")
        commit = self._at(self._writable(request, repo, proposal), revision)
        files = []
        for file in request.json()["files"]:
            lfs = self.lfs_from is not None and file["size"] >= self.lfs_from
            blob = commit.files.get(file["path"])
            oid = blob and (blob.sha256 if lfs else blob.sha1)
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files, "commitOid": commit.id}

    def commit_files(self, request: Request, repo: str, revision: str) -> dict[str, Any]:
        create_pr = request.flag("create_pr")
        found = self._writable(request, repo, proposal=create_pr or revision.startswith("refs/pr/"))
        (_, header), *operations = [self._operation(json.loads(line)) for line in request.body if line.strip()]
        title, expected = header["summary"], header.get("parentCommit")
        with self.store.lock:
            base = self._at(found, create_pr and expected or revision)
            if expected and not base.id.startswith(expected):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = _changed(base.files, operations)
            ref = next((ref for ref in (f"refs/heads/{revision}", revision) if ref in found.refs), None)
            pull = {}
            if create_pr:
                number = self._new_pull_request(found, title, base)
                ref = f"refs/pr/{number}"
                pull = {"pullRequestUrl": f"{self.endpoint}/{repo}/discussions/{number}"}
            elif ref is None:
                raise Refused(400, f"{revision} is no branch")
            commit = found.commit(ref, files, base, title, str(request.user), header.get("description", ""))
        return {"commitUrl": f"{self.endpoint}/{repo}/commit/{commit.id}", "commitOid": commit.id, **pull}

    def _operation(self, line: dict[str, Any]) -> tuple[str, Any]:
        """A line of a commit, once what it says is checked and its content is stored."""
        key, value = line["key"], line["value"]
        if key == "header":
            return key, value
        path = value["path"].removesuffix("/" if key == "deletedFolder" else "")
        if "\\" in path or {"", ".", ".."} & set(path.split("/")):
            raise Refused(400, f"Invalid path: {path!r}")
        if key == "file":
            return path, self.store.put(io.BytesIO(base64.b64decode(value["content"], validate=True)))
        if key == "lfsFile":
            blob = self.store.blob(value["oid"])
            if blob is None:
                raise Refused(400, f"LFS pointer pointed to a file that does not exist: {path}")
            return path, blob
        if key in ("deletedFile", "deletedFolder"):
            return (path if key == "deletedFile" else f"{path}/"), None
        raise Refused(400, f"Invalid operation: {key}")

    def lfs_batch(self, request: Request, repo: str) -> dict[str, Any]:
        self._writable(request, repo)
        objects = []
        for item in request.json()["objects"]:
            objects.append({"oid": item["oid"], "size": item["size"]})
            if self.store.blob(item["oid"]) is None:
                upload = {"href": f"{self.endpoint}/lfs/{item['oid']}"}
                verify = {"href": f"{self.endpoint}/{repo}.git/info/lfs/verify"}
                objects[-1]["actions"] = {"upload": upload, "verify": verify}
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, request: Request, oid: str) -> dict[str, Any]:
        # As for the storage behind the Hub, the address is the permission: the client sends no token here.
        found = self.store.put(request.body)
        if found.sha256 != oid:
            raise Refused(400, f"the content has the sha256 {found.sha256}, not {oid}")
        return {}

    def lfs_verify(self, request: Request, repo: str) -> dict[str, Any]:
        self._writable(request, repo)
        asked = request.json()
        blob = self.store.blob(asked["oid"])
        if blob is None or blob.size != asked["size"]:
            raise Refused(404, "there is no such object")
        return {}


def _changed(files: Mapping[str, Blob], operations: list[tuple[str, Blob | None]]) -> dict[str, Blob]:
    """The files after a commit's operations; a name that ends in a slash is a folder."""
    changed = dict(files)
    for path, blob in operations:
        if blob is not None:
            changed[path] = blob
            continue
        gone = [name for name in changed if name == path or path.endswith("/") and name.startswith(path)]
        if not gone:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del changed[name]
    return changed


def _folders(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _entry(repo: Repo, commit: Commit, name: str, expand: bool) -> dict[str, Any]:
    """A file or folder, as trees are listed."""
    blob = commit.files.get(name)
    if blob is None:
        inside = sorted(file for file in commit.files if file.startswith(f"{name}/"))
        last = repo.last_change(commit, inside[-1])
        listing = "".join(f"{file} {commit.files[file].sha1}\n" for file in inside)
        entry = {"type": "directory", "path": name, "size": 0, "oid": git_sha1(listing.encode())}
    else:
        last = repo.last_change(commit, name)
        entry = {"type": "file", "path": name, "size": blob.size, "oid": blob.git_oid(name)}
        if blob.is_lfs(name):
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    if expand:
        entry["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
    return entry


def _card(commit: Commit) -> dict[str, Any]:
    """The metadata of the README.md."""
    card = commit.files.get("README.md")
    return metadata(card.path.read_text("utf-8", errors="replace")) if card else {}

"""A Hub on the loopback for downloads: answers the HEAD and GET that huggingface_hub's client sends for a file."""

import hashlib
import http.server
import re
import threading
from collections.abc import Mapping
from urllib.parse import unquote

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class Hub:
    """Repositories of files, served from a thread while the `with` block lasts.

    Attributes:
        endpoint: the address to give to the client.
        requests: every file that was asked for, as `"METHOD org/name@revision file"`.
    """

    def __init__(self, repos: Mapping[str, Mapping[str, bytes]], gated: frozenset[str] = frozenset()) -> None:
        self.repos = repos
        self.gated = gated
        self.requests: list[str] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def commit(self, repo: str) -> str:
        """The one commit of a repository; its `main` and its tag `v1` point to it."""
        return hashlib.sha1(repo.encode()).hexdigest()

    def __enter__(self) -> "Hub":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            self._resolve(with_body=False)

        def do_GET(self) -> None:
            self._resolve(with_body=True)

        def _resolve(self, with_body: bool) -> None:
            match = _RESOLVE.fullmatch(unquote(self.path))
            if match is None:
                return self._fail(404, "EntryNotFound")
            repo, revision, file = match["repo"], match["revision"], match["file"]
            hub.requests.append(f"{self.command} {repo}@{revision} {file}")
            if repo in hub.gated:
                return self._fail(403, "GatedRepo")
            if repo not in hub.repos:
                return self._fail(404, "RepoNotFound")
            if revision not in ("main", "v1", hub.commit(repo)):
                return self._fail(404, "RevisionNotFound")
            if file not in hub.repos[repo]:
                return self._fail(404, "EntryNotFound", hub.commit(repo))
            content = hub.repos[repo][file]
            self.send_response(200)
            self.send_header("X-Repo-Commit", hub.commit(repo))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def _fail(self, status: int, code: str, commit: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler

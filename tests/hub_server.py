"""A Hub on the loopback: what huggingface_hub's client and the `hf` command ask for, and the faults of a network.

`python -m tests.hub_server FOLDER` serves a folder of `org/name/files...` for trying things by hand.
"""

import dataclasses
import http.server
import io
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_api import Answer, Api, Refused, Request
from tests.hub_store import PIECE, Blob, Repo, Store


@dataclasses.dataclass
class _Fault:
    """What befalls the requests that a pattern is found in."""

    kind: str  # "fail", "cut", "drop" or "delay"
    pattern: re.Pattern[str]
    times: int | None  # how often still; None: always
    value: Any = None


class Hub(Api):
    """Repositories that are served from a thread while the `with` block lasts.

    Attributes:
        endpoint: the address to give to the client.
        requests: all that was asked for, in order, as `"METHOD /path?query"`.
        authorized: who asked for it; None for who gave no valid token.
        sent: how many bytes went out as bodies.
        users: by token; a user may write to `"USER/..."` only.
        granted: pairs of a user and the name of a gated repository that they may read; owners always may.
        lfs_from: the number of bytes from which files are uploaded by LFS; None: all are part of the commit.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.requests: list[str] = []
        self.authorized: list[str | None] = []
        self.sent = 0
        self.users = {"hf_me": "me", "hf_stranger": "stranger"}
        self.granted: set[tuple[str, str]] = set()
        self.lfs_from: int | None = None
        self.tampered: dict[tuple[str, str], bytes] = {}
        self.false: dict[tuple[str, str], Mapping[str, str]] = {}
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        if self._server.errors and kind is None:
            raise self._server.errors[0]

    # The repositories, seen from inside

    def repos(self) -> list[str]:
        """The names of all."""
        return list(self.store.repos)

    def add(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Commit files to a branch, beside what is there already, under any name; makes what is not there yet."""
        blobs = {name: self._put(content) for name, content in files.items()}
        with self.store.lock:
            repo = self.store.repos.setdefault(repo_id, Repo(repo_id, private, gated))
            repo.private, repo.gated = repo.private or private, repo.gated or gated
            base = repo.find(revision) or repo.find("main")
            there = base.files if base else {}
            title = "Add " + ", ".join(files)
            return repo.commit(f"refs/heads/{revision}", {**there, **blobs}, base, title, repo.owner).id

    def _put(self, content: bytes | Path) -> Blob:
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
            return self.store.put(stream)

    def commit(self, repo_id: str, revision: str = "main") -> str:
        """The id of the commit that a branch, tag, ref or commit stands for."""
        return self._at(self.store.repos[repo_id], revision).id

    def history(self, repo_id: str, revision: str = "main") -> list[str]:
        """The ids of a commit and of all before it, the newest first."""
        repo = self.store.repos[repo_id]
        return [commit.id for commit in repo.history(self._at(repo, revision))]

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a commit with their content."""
        commit = self._at(self.store.repos[repo_id], revision)
        return {name: blob.path.read_bytes() for name, blob in commit.files.items()}

    def size(self, repo_id: str, file: str) -> int:
        """The bytes of a file of `main`."""
        return self._at(self.store.repos[repo_id], "main").files[file].size

    def tag(self, repo_id: str, name: str, revision: str = "main") -> None:
        """Name a commit; a tag of this name is moved."""
        self.store.repos[repo_id].refs[f"refs/tags/{name}"] = self.commit(repo_id, revision)

    # Faults. A pattern is searched in "METHOD /path".

    def fail(
        self,
        pattern: str,
        status: int = 503,
        *,
        times: int | None = 1,
        headers: Mapping[str, str] | None = None,
        message: str = "",
    ) -> None:
        """Answer with an error."""
        self._faults.append(_Fault("fail", re.compile(pattern), times, Refused(status, message, "", headers).answer))

    def say(self, pattern: str, body: bytes) -> None:
        """Answer with this and status 200, as what is no Hub does."""
        self._faults.append(_Fault("fail", re.compile(pattern), None, Answer(body=body)))

    def cut(self, pattern: str, after: int, *, times: int | None = 1) -> None:
        """Close the connection after so many bytes of the body that was announced."""
        self._faults.append(_Fault("cut", re.compile(pattern), times, after))

    def drop(self, pattern: str, *, times: int | None = 1) -> None:
        """Take the request, do nothing, answer nothing and close the connection."""
        self._faults.append(_Fault("drop", re.compile(pattern), times))

    def delay(self, pattern: str, seconds: float) -> None:
        """Do what was asked for, and hold the answer back."""
        self._faults.append(_Fault("delay", re.compile(pattern), None, seconds))

    def tamper(self, repo_id: str, file: str, content: bytes) -> None:
        """Serve another content than the one that is announced."""
        self.tampered[repo_id, file] = content

    def lie(self, repo_id: str, file: str, *, etag: str | None = None, commit: str | None = None) -> None:
        """Answer about a file with another ETag or commit, and with the true ones to the API."""
        headers = {} if commit is None else {"X-Repo-Commit": commit}
        if etag is not None:
            headers |= {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
        self.false[repo_id, file] = headers

    def restore(self) -> None:
        """No more faults."""
        self._faults.clear()
        self.tampered.clear()
        self.false.clear()

    def _take(self, kind: str, request: Request) -> Any:
        """What befalls a request; False: nothing."""
        line = f"{request.method} {unquote(urlsplit(request.url).path)}"
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.times != 0 and fault.pattern.search(line):
                    fault.times = fault.times and fault.times - 1
                    return fault.value
        return False

    def _receive(self, method: str, url: str, headers: Mapping[str, str], body: io.BufferedReader) -> Request:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        request = Request(method, url, headers, body, self.users.get(token))
        with self._lock:
            self.requests.append(f"{method} {url}")
            self.authorized.append(request.user)
        return request

    def answer(self, request: Request) -> Answer:
        if (planned := self._take("fail", request)) is not False:
            return planned
        if request.user is None and "Authorization" in request.headers:
            return Refused(401, "Invalid credentials in Authorization header").answer
        return super().answer(request)


class _Server(http.server.ThreadingHTTPServer):
    """A thread for each connection; none of them outlives the server."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.errors: list[BaseException] = []
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep open, and with them the threads."""
        self.closing.set()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the client was faster
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each request takes 40 ms
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        hub = self.server.hub
        body = io.BufferedReader(_Body(self.rfile, self.headers))
        request = hub._receive(self.command, self.path, self.headers, body)
        dropped = hub._take("drop", request) is not False
        try:
            answer = Answer() if dropped else hub.answer(request)
        except ConnectionError:
            raise
        except Exception as error:
            self.server.errors.append(error)
            answer = Refused(501, f"the test's Hub is broken: {error!r}").answer  # a status that is not tried again
        while body.read1(PIECE):
            pass  # what an endpoint did not want to know would be taken for the next request
        if dropped:
            self.close_connection = True
            return
        self.server.closing.wait(hub._take("delay", request) or 0)
        self._send(answer, hub._take("cut", request) if self.command == "GET" else False)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send(self, answer: Answer, cut: int | bool) -> None:
        content = answer.body
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as body:
            size = body.seek(0, io.SEEK_END)
            start, stop, _ = (answer.part or slice(None)).indices(size)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            if cut is not False:
                stop = min(stop, start + cut)
                self.close_connection = True
            body.seek(start)
            while piece := body.read(min(PIECE, stop - body.tell())):
                self.wfile.write(piece)
                self.server.hub.sent += len(piece)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Body(io.RawIOBase):
    """The body of a request, whether its length is announced or it comes in chunks."""

    def __init__(self, stream: io.BufferedIOBase, headers: Mapping[str, str]) -> None:
        self._stream = stream
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self._left = 0 if self._chunked else int(headers.get("Content-Length", 0))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._chunked and not self._left:
            self._left = int(self._stream.readline().split(b";")[0] or b"-1", 16)
            if self._left == 0:
                self._chunked = False
                while self._stream.readline().strip():
                    pass  # trailers
        if self._left == 0:
            return 0
        count = self._stream.readinto1(memoryview(buffer)[: self._left])
        if not count:
            raise ConnectionResetError("the client left within a request")
        self._left -= count
        if self._chunked and not self._left:
            self._stream.readline()
        return count


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as blobs, Hub(Path(blobs)) as hub:
        for repo in sorted(path for path in folder.glob("*/*") if path.is_dir()):
            files = {str(path.relative_to(repo)): path for path in repo.rglob("*") if path.is_file()}
            hub.add(str(repo.relative_to(folder)), files)
        try:
            # Within, since whoever reads this may interrupt at once.
            print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN=hf_me", flush=True)
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    # Ctrl-C ends it also where a shell started it in the background, with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Path(sys.argv[1]))

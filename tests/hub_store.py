"""What the Hub of the tests keeps: repositories whose commits name blobs, which lie in a folder by their hash."""

import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20

# What the Hub keeps as LFS: a commit names a pointer to the content, and the content is known by its sha256.
_LFS_SIZE = 1 << 20
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt")


@dataclasses.dataclass(frozen=True)
class Blob:
    """The content of a file, on disk."""

    path: Path
    size: int
    sha1: str  # git's, which counts a header too
    sha256: str

    def is_lfs(self, name: str) -> bool:
        return self.size >= _LFS_SIZE or name.endswith(_LFS_SUFFIXES)

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    def git_oid(self, name: str) -> str:
        """What a tree names the file by: a large one by its pointer."""
        return git_sha1(self.pointer) if self.is_lfs(name) else self.sha1

    def etag(self, name: str) -> str:
        return self.sha256 if self.is_lfs(name) else self.sha1


@dataclasses.dataclass(frozen=True)
class Commit:
    """The files of a repository at one time."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, Blob]


class Repo:
    """Commits, and the refs that point to them: `refs/heads/...`, `refs/tags/...`, `refs/pr/1`, ..."""

    def __init__(self, id: str, private: bool, gated: bool) -> None:
        self.id, self.private, self.gated = id, private, gated
        self.created = now()
        self.commits: dict[str, Commit] = {}
        self.refs: dict[str, str] = {}
        self.pull_titles: list[str] = []

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, ref or commit id stands for."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        return self.commits.get(revision)

    def history(self, commit: Commit) -> Iterator[Commit]:
        yield commit
        while commit.parent is not None:
            commit = self.commits[commit.parent]
            yield commit

    def last_change(self, commit: Commit, name: str) -> Commit:
        """The commit that gave a file the content that it has."""
        blob = commit.files[name]
        return list(itertools.takewhile(lambda older: older.files.get(name) == blob, self.history(commit)))[-1]

    def commit(
        self, ref: str, files: Mapping[str, Blob], parent: Commit | None, title: str, author: str, message: str = ""
    ) -> Commit:
        """Move a ref to a new commit."""
        date, above = now(), parent and parent.id
        what = [self.id, above, title, author, date, {name: blob.sha256 for name, blob in sorted(files.items())}]
        id = hashlib.sha1(json.dumps(what).encode()).hexdigest()
        self.commits[id] = Commit(id, above, title, message, author, date, dict(files))
        self.refs[ref] = id
        return self.commits[id]


class Store:
    """All repositories.

    Attributes:
        repos: by name.
        lock: to be held while a ref is compared and moved.
    """

    def __init__(self, folder: Path) -> None:
        self.repos: dict[str, Repo] = {}
        self.lock = threading.RLock()
        self._folder = folder
        self._blobs: dict[str, Blob] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Blob | None:
        return self._blobs.get(sha256)

    def put(self, content: BinaryIO) -> Blob:
        """Keep what a stream holds, read in pieces."""
        digest, size = hashlib.sha256(), 0
        descriptor, temporary = tempfile.mkstemp(dir=self._folder)
        try:
            with open(descriptor, "w+b") as file:
                while piece := content.read(PIECE):
                    digest.update(piece)
                    size += file.write(piece)
                file.seek(0)
                header = b"blob %d\0" % size
                sha1 = hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()
            path = self._folder / digest.hexdigest()
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return self._blobs.setdefault(path.name, Blob(path, size, sha1, path.name))


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def now() -> str:
    """The time, as the Hub writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

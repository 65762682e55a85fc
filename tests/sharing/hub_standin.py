"""A stand-in for a hub: the HTTP interface that huggingface_hub uses, on 127.0.0.1, with its repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens that this hub knows."""


@dataclass
class Repository:
    """Branches, tags and the files of each commit; ``private`` and ``gated`` as on a real hub."""

    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        tree = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        commit = hashlib.sha1(repr((message, len(self.commits), sorted(tree.items()))).encode()).hexdigest()
        self.commits[commit], self.refs[branch] = tree, commit
        self.messages.append(message)
        return commit

    def resolve(self, revision: str) -> str | None:
        found = self.refs.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the server knows, and what tests ask it to do wrong."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    stray_tokens: list[str] = field(default_factory=list)
    announced: dict[str, int] = field(default_factory=dict)
    failing: tuple[int, dict[str, str]] | None = None

    def add(self, name: str, files: dict[str, bytes], **facts: bool) -> str:
        """Make a repository and return its first commit."""
        self.repositories[name] = Repository(**facts)
        return self.repositories[name].commit("main", files)

    def tamper(self, name: str, file: str, data: bytes) -> None:
        """Serve other content for a file of every commit, without a word of it in what the hub announces."""
        for tree in self.repositories[name].commits.values():
            if file.endswith(".safetensors"):
                self.uploads[hashlib.sha256(tree[file]).hexdigest()] = data
            elif file in tree:
                tree[file] = data


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        url = urlsplit(self.path)
        self.where, self.query = url.path, parse_qs(url.query)
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.requests.append(f"{self.command} {unquote(self.where)}")
        try:
            if self.hub.failing is not None:
                status, headers = self.hub.failing
                self._send(status, b"", headers)
                return
            for method, pattern, act in ROUTES:
                match = re.fullmatch(pattern, self.where)
                if match and self.command in method:
                    act(self, *(unquote(part) for part in match.groups()))
                    return
            raise _Refused(404)
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, data: Any, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode())

    def _repository(self, name: str, write: bool = False) -> Repository:
        if self.token and self.token not in (WRITER, READER):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.token):
            raise _Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if write and self.token != WRITER:
            raise _Refused(403, "", "you must use a write token")
        return found

    def create(self) -> None:
        given = json.loads(self.body)
        name = f"{given['organization']}/{given['name']}"
        if self.token != WRITER:
            raise _Refused(403 if self.token == READER else 401, "", "Invalid username or password")
        known = name in self.hub.repositories
        if not known:
            hidden = given.get("visibility") == "private" or bool(given.get("private"))
            self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=hidden)
        self._json({"url": f"{self.hub.url}/{name}"}, 409 if known else 200)

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        good = re.match(r"---\nlicense: \S+\n(?:.*\n)*?---\n", content) is not None
        self._json({"errors": [] if good else [{"message": "no license"}], "warnings": []}, 200 if good else 400)

    def info(self, name: str, revision: str = "main") -> None:
        commit, tree = self._revision(name, revision)
        files = []
        for path, data in tree.items():
            entry: dict[str, Any] = {"rfilename": path}
            if "blobs" in self.query:
                entry |= {"size": self.hub.announced.get(path, len(data)), "blobId": _git_hash(data)}
            files.append(entry)
        facts = {"id": name, "sha": commit, "private": self.hub.repositories[name].private}
        self._json({**facts, "siblings": files})

    def refs(self, name: str) -> None:
        repository = self._repository(name)

        def listed(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in found.items()]

        tags = listed("tags", repository.tags)
        self._json({"branches": listed("heads", repository.refs), "tags": tags, "converts": []})

    def preupload(self, name: str, revision: str) -> None:
        self._repository(name, write=True)
        _, tree = self._revision(name, revision)
        answer = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            large, here = path.endswith(".safetensors"), tree.get(path)
            oid = None if here is None else hashlib.sha256(here).hexdigest() if large else _git_hash(here)
            mode = "lfs" if large else "regular"
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer})

    def batch(self, name: str) -> None:
        self._repository(name, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.uploads:
                place = self.hub.url.replace("127.0.0.1", "localhost") + f"/store/{asked['oid']}"
                verify = {"href": f"{self.hub.url}/{name}/verify"}
                entry["actions"] = {"upload": {"href": place}, "verify": verify}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        self.hub.stray_tokens += [self.token] * bool(self.token)
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content is another")
        self.hub.uploads[oid] = self.body
        self._send(200, b"")

    def verify(self, name: str) -> None:
        self._repository(name, write=True)
        given = json.loads(self.body)
        self._json({}, 200 if len(self.hub.uploads[given["oid"]]) == given["size"] else 400)

    def commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        if revision not in repository.refs:
            raise _Refused(404, "RevisionNotFound", "no such branch")
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            if line["key"] == "file"
            else self.hub.uploads[line["value"]["oid"]]
            for line in lines
            if line["key"] in ("file", "lfsFile")
        }
        commit = repository.commit(revision, files, header["summary"])
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        if branch in repository.refs:
            raise _Refused(409, "", "branch exists")
        repository.refs[branch] = repository.refs["main"]
        self._json({})

    def tag(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        repository.tags[json.loads(self.body)["tag"]] = self._revision(name, revision)[0]
        self._json({})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if self._repository(name).gated:
            raise _Refused(403, "GatedRepo", "Access to this model is restricted")
        commit, tree = self._revision(name, revision)
        if path not in tree:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        data = tree[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_hash(data)}"', "Accept-Ranges": "bytes"}
        if not path.endswith(".safetensors"):
            self._send_range(data, headers)
            return
        oid = hashlib.sha256(data).hexdigest()
        self.hub.uploads.setdefault(oid, data)
        headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(data))}
        # Large files lie with another host, which must not be shown the token.
        self._send(302, b"", {**headers, "Location": self.hub.url.replace("127.0.0.1", "localhost") + f"/large/{oid}"})

    def large(self, oid: str) -> None:
        self.hub.stray_tokens += [self.token] * bool(self.token)
        self._send_range(self.hub.uploads[oid], {"ETag": f'"{oid}"'})

    def _send_range(self, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, data, headers)
            return
        first, last = int(asked[1]), int(asked[2] or len(data) - 1)
        self._send(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _revision(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self._repository(name)
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


REPO = r"([^/]+/[^/]+)"
ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{REPO}", _Handler.info),
    ("GET", f"/api/models/{REPO}/revision/([^/]+)", _Handler.info),
    ("GET", f"/api/models/{REPO}/refs", _Handler.refs),
    ("POST", f"/api/models/{REPO}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/api/models/{REPO}/commit/([^/]+)", _Handler.commit),
    ("POST", f"/api/models/{REPO}/branch/([^/]+)", _Handler.branch),
    ("POST", f"/api/models/{REPO}/tag/([^/]+)", _Handler.tag),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("POST", f"/{REPO}/verify", _Handler.verify),
    ("PUT", "/store/([0-9a-f]+)", _Handler.store),
    ("GET HEAD", "/large/([0-9a-f]+)", _Handler.large),
    ("GET HEAD", f"/{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
)

"""A local server that speaks as much of the hub's protocol as this package uses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "twke/CAST"


class Hub(ThreadingHTTPServer):
    """Serves `files` of REPOSITORY and what is pushed to others.

    Attributes:
        files: name -> bytes of REPOSITORY; `pushed`: repository -> the same.
        log: (method, file, Range header) of every request for a file.
        wrong: name -> content on the wire in place of the file's own.
        cut: name -> bytes after which the connection is closed, once.
        refused: status for everything that writes, or 0.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.pushed, self.log, self.wrong, self.cut, self.refused = files, {}, [], {}, {}, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def repository(self, name):
        return self.files if name == REPOSITORY else self.pushed.get(name)

    def commit(self, name):
        """40 hex digits that change with the content."""
        content = hashlib.sha1()
        for path, data in sorted(self.repository(name).items()):
            content.update(path.encode() + b"\0" + data)
        return content.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            return self.listing(*match.groups())
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path)
        files = self.server.repository(match[1]) if match else None
        if files is None:
            return self.answer(404, X_Error_Code="RepoNotFound")
        name = match[2]
        self.server.log.append((self.command, name, self.headers.get("Range")))
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=self.server.commit(match[1]))
        return self.file(name, files[name], self.server.commit(match[1]))

    do_HEAD = do_GET

    def listing(self, repository, rest):
        files = self.server.repository(repository)
        if files is None:
            return self.answer(404, X_Error_Code="RepoNotFound")
        names = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in files]
        body = {
            "id": repository,
            "sha": self.server.commit(repository),
            "siblings": [{"rfilename": name} for name in files],
        }
        return self.answer(200, names if "/tree/" in (rest or "") else body)

    def file(self, name, content, commit):
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Repo_Commit": commit,
            "Accept_Ranges": "bytes",
        }
        if self.command == "HEAD":
            self.send_response(200)
            for key, value in {**headers, "Content_Length": len(content)}.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            return None
        content = self.server.wrong.get(name, content)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name not in self.server.cut:
            return self.answer(206 if start else 200, content[start:], **headers)
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content_Length": len(content) - start}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut.pop(name)])
        self.close_connection = True
        return None

    def do_POST(self):
        path, body = self.path.partition("?")[0], self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refused:
            return self.answer(self.server.refused, {"error": "no"})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.pushed.setdefault(repository, {})
            return self.answer(200, {"url": f"{self.server.url}/{repository}", "name": repository})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        repository, what = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if what == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.answer(200, {"files": modes})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.pushed[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.server.commit(repository)
        url = f"{self.server.url}/{repository}/commit/{commit}"
        return self.answer(200, {"commitUrl": url, "commitOid": commit, "success": True})

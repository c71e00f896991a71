"""A JSON service in a thread of the test."""

from __future__ import annotations

import http.client
import json
import threading
import time

from standin import StandIn


class Running:
    """A service in a thread."""

    def __init__(self, wait: float = 0.0, **options):
        from cast_sdk.runtime.service.server import Service

        self.service = Service(StandIn(wait), port=0, linger=0.3, **options)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()
        while not self.service.started:
            time.sleep(0.01)

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def post(self, path, body, headers=None):
        status, data, _ = self.request("POST", path, body, headers)
        return status, json.loads(data)

    def end(self):
        self.service.end()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.service.close()

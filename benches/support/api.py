"""A Kubernetes API client of a few lines: enough to make objects and look at them."""

import http.client
import json
import ssl


class Refused(Exception):
    """An error answer."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text[:300]}")
        self.code = code


class Api:
    """One API server and the credentials for it."""

    def __init__(self, host, port, ca, identity=None, token=None):
        self.host, self.port, self.ca, self.identity, self.token = host, port, ca, identity, token
        self._tls = ssl.create_default_context(cafile=str(ca))
        # A server's first certificate may be its own authority's.
        self._tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if identity:
            self._tls.load_cert_chain(str(identity))
        self._connection = None

    @property
    def url(self):
        return f"https://{self.host}:{self.port}"

    def arguments(self):
        """For the load generator."""
        who = ["--identity", str(self.identity)] if self.identity else ["--token", self.token]
        return ["--url", self.url, "--ca", str(self.ca), *who]

    def raw(self, method, path, body=None, media="application/json"):
        headers = {"Accept": "application/json"} if path.startswith("/api") else {}
        if body is not None:
            headers["Content-Type"] = media
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in (1, 2):
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(self.host, self.port, context=self._tls, timeout=60)
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                text = response.read().decode()
                break
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self._connection = None
                if attempt == 2:
                    raise
        if response.status >= 400:
            raise Refused(response.status, text)
        return text

    def ask(self, method, path, body=None, media="application/json"):
        text = self.raw(method, path, None if body is None else json.dumps(body), media)
        return json.loads(text)

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def merge(self, path, body):
        return self.ask("PATCH", path, body, "application/merge-patch+json")

    def ready(self):
        try:
            return self.raw("GET", "/readyz") == "ok"
        except (OSError, Refused, http.client.HTTPException):
            return False

    def ensure_namespace(self, name):
        try:
            self.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except Refused as refused:
            if refused.code != 409:
                raise

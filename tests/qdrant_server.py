"""A Qdrant server's routes, as far as they are used, played by the client's own local mode."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models


class QdrantServer(ThreadingHTTPServer):
    """Lends its ``url``; with ``broken`` every request fails."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Asked)
        self.api_key = None
        self.broken = False
        self.client = QdrantClient(":memory:")
        self.turn = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.client.close()


def query(client, name, body):
    meant = models.Filter.model_validate(body["filter"])
    return client.query_points(
        name, body["query"]["nearest"], query_filter=meant, limit=body["limit"], with_payload=body["with_payload"]
    ).model_dump()


def scroll(client, name, body):
    points, following = client.scroll(name, limit=body["limit"], offset=body.get("offset"), with_payload=False)
    return {"points": [point.model_dump() for point in points], "next_page_offset": following}


def index(_client, _name, body):
    assert body["field_schema"] == "keyword"
    return {"operation_id": 0, "status": "completed"}


ROUTES = {
    "GET exists": lambda client, name, _: {"exists": client.collection_exists(name)},
    "GET": lambda client, name, _: client.get_collection(name).model_dump(mode="json"),
    "PUT": lambda client, name, body: client.create_collection(name, models.VectorParams(**body["vectors"])),
    "DELETE": lambda client, name, _: client.delete_collection(name),
    "PUT index": index,
    "PUT points": lambda client, name, body: client.upsert(
        name, [models.PointStruct(**point) for point in body["points"]]
    ).model_dump(),
    "POST points/delete": lambda client, name, body: client.delete(
        name, models.PointIdsList(points=body["points"])
    ).model_dump(),
    "POST points/query": query,
    "POST points/scroll": scroll,
}


class Asked(BaseHTTPRequestHandler):
    """Answers one request after the other."""

    protocol_version = "HTTP/1.1"
    server: QdrantServer

    def do_GET(self):
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.server.broken:
            return self._send(500, {"status": {"error": "broken"}})
        if self.server.api_key and self.headers.get("api-key") != self.server.api_key:
            return self._send(401, {"status": {"error": "no key, or a wrong one"}})
        _, _, name, *rest = urlsplit(self.path).path.split("/")
        route = f"{self.command} {'/'.join(rest)}".strip()
        try:
            with self.server.turn:
                result = ROUTES[route](self.server.client, name, body)
        except ValueError as missing:
            return self._send(404, {"status": {"error": str(missing)}})
        return self._send(200, {"result": result, "status": "ok", "time": 0.0})

    def do_PUT(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def do_DELETE(self):
        self.do_GET()

    def _send(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

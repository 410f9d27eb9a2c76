"""Every refused request is a problem that names the culprit; no stream starts and no run is stored."""

import json
import socket
import time

import httpx
import pytest

JSON = {"Content-Type": "application/json"}


def post(server, body, headers=JSON, path="/chat"):
    return httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t "}, "message"),
        ({"message": "\0"}, "message"),
        ({"message": "x" * 5001}, "message"),
        ({"message": 7}, "message"),
        ({"message": None}, "message"),
        ({"message": ["x"]}, "message"),
        ({"message": "x", "session_id": ""}, "session_id"),
        ({"message": "x", "session_id": "a b"}, "session_id"),
        ({"message": "x", "session_id": "a\n"}, "session_id"),
        ({"message": "x", "session_id": "é"}, "session_id"),
        ({"message": "x", "session_id": "x" * 129}, "session_id"),
        ({"message": "x", "session_id": 7}, "session_id"),
        ({"message": "x", "api_base": "http://evil"}, "api_base"),
        ({"message": "x", "stream": "yes"}, "stream"),
        ({"message": "x", "filters": {"kind": {"$ne": 1}}}, "filters"),
        ({"message": "x", "filters": 7}, "filters"),
        ({"message": "x", "filters": {"kind": "a\0b"}}, "filters"),
        ({"message": "x", "on_disconnect": "maybe"}, "on_disconnect"),
        ({"message": "x", "if_busy": "wait"}, "if_busy"),
    ],
)
def test_a_bad_field_is_named(server, body, field):
    response = post(server, json.dumps(body))
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert field in response.json()["detail"]
    assert response.json()["errors"][0]["field"].split(".")[0].split("[")[0] == field


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"message": "x"', b'{"message": "\xff"}', b"\xff\xfe",
     b'{"message": "\\ud800"}', b"[" * 9999],
    ids=["empty", "open", "list", "null", "string", "cut", "invalid utf-8", "utf-16", "surrogate", "deep"],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(server, body):
    response = post(server, body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"])
def test_another_content_type_is_refused(server, content_type):
    response = post(server, '{"message": "x"}', {"Content-Type": content_type} if content_type else {})
    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


def test_a_charset_beside_the_content_type_is_fine(server):
    response = post(server, '{"message": "x"}', {"Content-Type": "application/json; charset=utf-8"})
    assert response.status_code == 200


def test_a_body_of_ten_megabytes_is_refused(server):
    response = post(server, json.dumps({"message": "x" * 10_000_000}))
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/chat", 405), ("DELETE", "/health", 405), ("GET", "/documents/none", 404)],
)
def test_what_is_not_there_is_a_problem_too(server, method, path, status):
    response = httpx.request(method, f"{server.url}{path}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "offset=-1", "offset=99999999999999999999"])
def test_a_bad_page_is_refused_by_name(server, query):
    response = httpx.get(f"{server.url}/documents?{query}")
    assert response.status_code == 400
    assert query.split("=")[0] in response.text


@pytest.mark.parametrize("body", [{"query": ""}, {"query": "x", "limit": 0}, {"query": "x", "foo": 1}, {}])
def test_a_bad_search_is_refused(server, body):
    assert post(server, json.dumps(body), path="/search").status_code == 400


def test_refused_requests_leave_no_run(server, sample_database):
    import asyncio

    import asyncpg

    async def count():
        connection = await asyncpg.connect(sample_database.replace("+asyncpg", ""))
        found = await connection.fetchval("select count(*) from run where session_id = 'refused'")
        await connection.close()
        return found

    post(server, json.dumps({"message": "", "session_id": "refused"}))
    post(server, json.dumps({"message": "x", "session_id": "refused", "foo": 1}))
    assert asyncio.run(count()) == 0


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault_of_the_server(server):
    before = len(server.log_lines())
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        time.sleep(0.2)
    time.sleep(0.3)
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert [line for line in server.log_lines()[before:] if line["level"] == "error"] == []

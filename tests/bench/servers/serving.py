"""Starts a server of the comparison: ``python -m tests.bench.servers.<name> --port PORT --upstream URL``."""

import argparse

import uvicorn


def arguments(*flags):
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="http://host:port/v1")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def serve(app, port):
    """Serve an ASGI application as fast as uvicorn can: uvloop, httptools, no access log."""
    uvicorn.run(app, port=port, http="httptools", log_level="warning", access_log=False, backlog=4096)

"""Connections of the pool: broken ones are replaced unnoticed, and sound ones are not asked before every use."""

import pytest
from sqlalchemy import text

from api.storage import database
from api.storage.patience import PromptConnection
from tests.faults.postgres import until

PID = text("select pg_backend_pid()")


@pytest.fixture
async def engine(new_database_async):
    engine = database.connect(await new_database_async(), 1)
    yield engine
    await engine.dispose()


async def pid_of(engine):
    async with engine.connect() as connection:
        return await connection.scalar(PID)


async def end_backend(engine, pid):
    """End a connection's backend and wait until the connection has noticed."""
    async with engine.connect() as connection:
        ended = (await connection.get_raw_connection()).driver_connection
    other = database.connect(engine.url, 0)
    async with other.connect() as connection:
        await connection.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})

    async def noticed():
        return not ended._protocol.is_connected()

    await until(noticed, 10)


async def test_a_connection_that_the_server_has_closed_is_replaced(engine):
    pid = await pid_of(engine)
    await end_backend(engine, pid)
    assert await pid_of(engine) != pid


async def test_a_connection_that_broke_while_it_was_idle_is_replaced(engine, monkeypatch):
    monkeypatch.setattr(database, "UNTRIED_S", -1.0)
    pid = await pid_of(engine)
    await end_backend(engine, pid)
    monkeypatch.setattr(PromptConnection, "is_closed", lambda _: False)  # as with a cable that was cut
    assert await pid_of(engine) != pid


async def test_only_a_connection_that_was_idle_is_tried_out(engine, monkeypatch):
    sent = []
    await pid_of(engine)
    async with engine.connect() as connection:
        transport = (await connection.get_raw_connection()).driver_connection._transport
    write = transport.write

    def counted(message):
        sent.append(message)
        write(message)

    monkeypatch.setattr(transport, "write", counted)

    async def messages():
        sent.clear()
        await pid_of(engine)
        return len(sent)

    at_once = await messages()
    monkeypatch.setattr(database, "UNTRIED_S", -1.0)
    assert await messages() > at_once

"""The database: one engine for all applications, SQLite in a file by default, PostgreSQL by its URL.

Owns the engine, transactions and the state of the schema. Must never know what a table is for.

Invariants: nothing here blocks the loop (aiosqlite's threads, asyncpg's sockets); every wait has a limit; SQLite writes
one transaction at a time, in the order in which they were asked for, so that two of them never fail as locked. A
transaction is whole or did not happen. A process that stands still within a transaction keeps PostgreSQL's locks for
`ANSWER_SECONDS` at most.
Cost: about 0.3 ms for a small transaction in SQLite, most of it the way to its thread and back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DataError, DBAPIError, NotSupportedError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from handlers.answers import Refused
from server.endings import UNAVAILABLE
from server.logs import get_logger

# All tables, each defined in the module that owns it; made by the migrations.
metadata = MetaData()

ANSWER_SECONDS = 10.0
POOL_CONNECTIONS = 8
READ_ONLY = "25006"
# The database, a schema, a right, a column or a table is missing: it is being restored, or somebody's hand was in it.
# Our statements are the same for all values, so no request and no message is at fault.
_AMISS = ("3D000", "3F000", "42501", "42703", "42P01")
# SQLSTATEs, whole or by class, that are no fault of a statement or its values: what is refused now may succeed later,
# so who asks must be told to come back. Taken for anything else they cost what a source was told to forget.
_AWAY_STATES = (
    "08",  # no connection, or it broke
    READ_ONLY,  # a standby, as after a failover
    "25P03",  # our transaction stood still for longer than it may; so too 25P04, lasted
    "25P04",
    "28",  # the password, or who may connect, was changed
    *_AMISS,
    "40001",  # two transactions were in each other's way and this one was undone: serialisation,
    "40003",  # or nobody knows how it ended,
    "40P01",  # or a deadlock
    "53",  # out of memory, disk or connections
    "55006",  # somebody has what is wanted: an object in use, a lock that was not to be waited for
    "55P03",
    "57",  # an operator: a server that starts, stops or has crashed; a statement that was cancelled or took too long
    "58",  # the system below: input, output, a file
    "XX",  # the server's own defects, and damaged data
)
# The values themselves can't be stored, whenever it is tried: data exceptions, and what is beyond the server's limits.
_VALUE_STATES = ("22", "54")
# SQLite: busy, locked, read-only, input or output, full, cannot open.
_AWAY_CODES = (5, 6, 8, 10, 13, 14)
MIGRATIONS = Path(__file__).parent / "migrations"

log = get_logger("database")


class _SqliteConnection(sqlite3.Connection):
    """One that takes its statements along when it is closed. Where a task is cancelled between a statement and its rows
    SQLAlchemy closes the connection; a statement that the task's traceback still holds would keep the lock for writing
    until the traceback goes, and everybody else would wait for `ANSWER_SECONDS`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **options: Any) -> Any:
        made = super().cursor(*args, **options)
        self._cursors.add(made)
        return made

    def close(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        super().close()


class DatabaseUnavailable(Refused):
    """The database does not answer, not in time, or refuses for now. Who asked is told to come back. `reason` may be
    shown to anybody."""

    def __init__(self, reason: str) -> None:
        super().__init__(UNAVAILABLE, reason=reason)


def url_of(database: str) -> str:
    """The driver's URL for a setting: `sqlite:PATH` or `postgresql://…`. Raises ValueError."""
    if database.startswith("sqlite:"):
        return f"sqlite+aiosqlite:///{database.removeprefix('sqlite:')}"
    if database.startswith(("postgresql://", "postgres://")):
        return "postgresql+asyncpg://" + database.partition("://")[2]
    raise ValueError("must be sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME")


class Database:
    """See the module's head. `start` before anything else."""

    def __init__(self, database: str) -> None:
        self.url = url_of(database)
        self.sqlite = self.url.startswith("sqlite")
        self._engine: AsyncEngine | None = None
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Connect, and bring the schema up to date. Raises DatabaseUnavailable."""
        if self.sqlite:
            options: dict[str, Any] = {"connect_args": {"factory": _SqliteConnection}}
        else:
            limits = {
                "timeout": ANSWER_SECONDS,
                "command_timeout": ANSWER_SECONDS,
                "server_settings": {"idle_in_transaction_session_timeout": f"{ANSWER_SECONDS * 1e3:.0f}"},
            }
            options = {
                "pool_size": POOL_CONNECTIONS,
                "pool_timeout": ANSWER_SECONDS,
                "pool_pre_ping": True,
                "connect_args": limits,
            }
        self._engine = create_async_engine(self.url, **options)
        if self.sqlite:
            event.listen(self._engine.sync_engine, "connect", _set_pragmas)
        else:
            event.listen(self._engine.sync_engine, "handle_error", _leave_read_only)
        async with _translated():
            try:
                await asyncio.to_thread(migrate, self.url)
            except DBAPIError as error:
                raise DatabaseUnavailable(_reason(error)) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read by. Raises DatabaseUnavailable."""
        async with _translated(), self._connected().connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, undone if it raises. Raises DatabaseUnavailable."""
        if not self.sqlite:
            async with _translated(), self._connected().begin() as connection:
                yield connection
            return
        async with self._writing, _translated(), self._connected().begin() as connection:
            yield connection

    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            raise DatabaseUnavailable("the database is not open")
        return self._engine

    async def stop(self) -> None:
        """Close all connections; whoever comes late gets none, for nobody would close it, and its thread would keep the
        process."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()


def migrate(url: str) -> None:
    """Bring the schema of a database up to date. Blocking."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = make_url(url)
    command.upgrade(config, "head")


def _set_pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"busy_timeout={ANSWER_SECONDS:.0f}000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _leave_read_only(context: ExceptionContext) -> None:
    """Connections to a server that has become a standby, or sessions that are read-only, would stay as they are when
    there is something to write to again. So none is used any more."""
    if _state_of(context.original_exception) == READ_ONLY:
        context.is_disconnect = True


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """What says that the database is away becomes one error; what says that a statement is wrong stays as it is."""
    try:
        yield
    except Exception as error:
        if _is_away(error):
            if isinstance(error, DBAPIError) and _state_of(error.orig) in _AMISS:
                log.error("database_amiss", reason=str(error.orig).partition("\n")[0])  # the name of what is missing
            raise DatabaseUnavailable(_reason(error)) from error
        raise


def _is_away(error: BaseException | None) -> bool:
    """True for what is no fault of the statement. Where there was no connection yet the driver's own errors come."""
    # Not supported is a plan from before another node's migration: the next try makes a new one.
    if isinstance(error, (OSError, TimeoutError, NoConnectionFree, NotSupportedError)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_away(error.orig)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _state_of(error).startswith(_AWAY_STATES) or code in _AWAY_CODES


def is_of_values(error: Exception) -> bool:
    """True if the database refuses the values themselves, and so will whenever it is asked."""
    return isinstance(error, DBAPIError) and (
        isinstance(error, DataError) or _state_of(error.orig).startswith(_VALUE_STATES)
    )


def _state_of(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""


def _reason(error: BaseException) -> str:
    state = _state_of(error.orig if isinstance(error, DBAPIError) else error)
    if state:
        return f"the database refuses for now (SQLSTATE {state})"
    return f"the database does not answer ({type(error).__name__})"

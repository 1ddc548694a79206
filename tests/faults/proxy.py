"""A TCP proxy that does to connections what networks do: cuts them, refuses them, swallows what they carry."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

from tests.parts import free_port

Target = int | Path  # a port on this machine, or a Unix socket
_CHUNK = 65536


class Proxy:
    """Listens on `port` and passes everything on to its target, until told otherwise."""

    def __init__(self, target: Target) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[_Connection] = set()
        self._silent = self._refusing = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Reset every connection, as a firewall or a dying peer does; new ones are passed on."""
        self._do(self._cut())

    def swallow(self) -> None:
        """Pass nothing on any more on the connections there are, and say nothing; new ones are passed on."""
        for connection in list(self._connections):
            connection.silent = True

    def fall_silent(self) -> None:
        """As if the cable were pulled: what is sent is lost, on new connections as well."""
        self._silent = True
        self.swallow()

    def refuse(self) -> None:
        """As if the server's machine had gone: connections are reset, new ones too."""
        self._refusing = True
        self.cut()

    def recover(self) -> None:
        """Pass on again; connections that were silent are reset."""
        self._silent = self._refusing = False
        self._do(self._cut(only_silent=True))

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _cut(self, *, only_silent: bool = False) -> None:
        for connection in [one for one in self._connections if one.silent or not only_silent]:
            connection.reset()
            self._connections.discard(connection)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer, silent=self._silent)
        if self._refusing:
            connection.reset()
            return
        self._connections.add(connection)
        try:
            if connection.silent:
                await connection.over.wait()
                return
            if isinstance(self._target, Path):
                there, out = await asyncio.open_unix_connection(str(self._target))
            else:
                there, out = await asyncio.open_connection("127.0.0.1", self._target)
            connection.writers.append(out)
            await asyncio.gather(connection.pass_on(reader, out), connection.pass_on(there, writer))
        except OSError:
            connection.reset()
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter, *, silent: bool) -> None:
        self.writers = [writer]
        self.silent = silent
        self.over = asyncio.Event()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if not self.silent:
                writer.write(chunk)
                await writer.drain()
        if not self.silent:
            writer.close()

    def reset(self) -> None:
        self.over.set()
        for writer in self.writers:
            transport = writer.transport
            open_socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError, AttributeError):
                open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            transport.abort()

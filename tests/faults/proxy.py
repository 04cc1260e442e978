"""A bad network: a TCP proxy that delays, stalls, cuts, corrupts and swallows.

Each door leads to one address. Its mood applies to all its connections, at each piece of data
that passes. Runs as a process of the rig (`faults.child`).
"""

import asyncio
import random
import socket
import struct

from faults.child import Actor, main
from faults.logs import Row

UP, DOWN = "up", "down"


class Door:
    """A listener, where it leads, and what it does to the bytes."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.mood = "pass"
        self.value = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.lost: set[asyncio.StreamWriter] = set()
        """Connections of which bytes were swallowed; they can never be whole again."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy(Actor):
    """All doors."""

    def __init__(self, config: Row) -> None:
        super().__init__(config)
        self._chance = random.Random(config["seed"])
        self._doors = {
            name: Door(*address) for name, address in config["doors"].items()
        }
        self._passed = 0

    def figures(self) -> Row:
        return {"passed": self._passed}

    async def start(self) -> None:
        self._ports = {}
        self._servers = []
        for name, door in self._doors.items():
            server = await asyncio.start_server(self._guest(door), "127.0.0.1", 0, limit=1 << 16)
            self._servers.append(server)
            self._ports[name] = server.sockets[0].getsockname()[1]

    async def do_ports(self) -> dict[str, int]:
        """Where each door is."""
        return self._ports

    async def do_mood(self, names: list[str], mood: str, value: float = 0.0) -> None:
        """Change what some doors do."""
        for name in names:
            door = self._doors[name]
            door.mood, door.value = mood, value
            if mood == "stall":
                door.open.clear()
            else:
                door.open.set()
            if mood == "pass":
                for writer in door.lost:
                    reset(writer)
                door.lost.clear()

    def _guest(self, door: Door):  # type: ignore[no-untyped-def]  # a callback of asyncio's
        async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there, back = await asyncio.open_connection(door.host, door.port, limit=1 << 16)
            except OSError:
                reset(writer)
                return
            ways = [
                asyncio.ensure_future(self._carry(door, UP, reader, back, writer)),
                asyncio.ensure_future(self._carry(door, DOWN, there, writer, back)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                door.lost.discard(writer)
                door.lost.discard(back)
                for end in (writer, back):
                    if not end.is_closing():
                        end.close()

        return come

    async def _carry(
        self,
        door: Door,
        way: str,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        try:
            while data := await source.read(65_536):
                self._passed += len(data)
                data = await self._treat(door, way, data, target, other)
                if data and target not in door.lost:
                    target.write(data)
                    await target.drain()
        except OSError:
            reset(target)
            reset(other)

    async def _treat(
        self,
        door: Door,
        way: str,
        data: bytes,
        target: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> bytes:
        if door.mood == "delay":
            await asyncio.sleep(door.value * self._chance.random())
        elif door.mood == "stall":
            await door.open.wait()
        elif door.mood == "cut" and self._chance.random() < door.value:
            # In the middle of what was on its way.
            target.write(data[: self._chance.randrange(len(data) + 1)])
            await target.drain()
            raise ConnectionResetError
        elif door.mood == "garbage" and way == UP:
            place = self._chance.randrange(len(data))
            return data[:place] + self._chance.randbytes(16) + data[place + 16 :]
        elif door.mood == "censor" and way == DOWN and self._chance.random() < door.value:
            # Not a fault of any network: it is here to see whether anybody notices.
            before, found, rest = data.partition(b'\n\ndata: {"channel":')
            _, end, after = rest.partition(b"\n\n")
            if found and end:
                return before + end + after
        elif door.mood == "swallow":
            door.lost.update((target, other))
        elif door.mood == "eat" and way == DOWN and self._chance.random() < door.value:
            raise ConnectionResetError
        return data


if __name__ == "__main__":
    main(Proxy)

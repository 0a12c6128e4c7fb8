"""A proxy before a store that holds replies back for a random while.

`python -m benchmarks.faults.delaying_proxy PORT MS` prints its own port, and ends with its input. Replies of one
connection stay in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys


async def _serve(store_port: int, longest_s: float) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, longest_s: float) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if longest_s:
                    await asyncio.sleep(random.random() * longest_s)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", store_port)
        await asyncio.gather(pump(reader, store_writer, 0), pump(store_reader, writer, longest_s))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))

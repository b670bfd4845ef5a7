"""All hosts there are, on every address there is, for tests of what sandboxes reach.

Run with a name: `world` serves names (DNS), pages, packages and odd peers; `host` serves the same where nothing may ever
arrive. Both keep a list of every connection, which they tell on port 9.
"""
import asyncio, io, json, os, socket, struct, sys, tarfile, zipfile

PORTS = (22, 53, 80, 443, 8080, 7000, 7001, 7002, 9)
seen, asked, files = [], {}, {}
paused = {"written": 0}
never = asyncio.Event()


def addresses(name):
    """The addresses of a name by IPv4 and IPv6, how long they hold, and the name that it is only an alias for."""
    known = {"a": ("203.0.113.10", "2001:db8::10"), "b": ("203.0.113.11", "2001:db8::11"),
             "same": ("203.0.113.10", "2001:db8::10"), "private": ("10.0.0.1", "fd00::1")}
    head, _, rest = name.partition(".")
    if head.startswith("to-"):
        return (head[3:].replace("-", "."), None), 60, None
    if head.startswith("six-"):
        return (None, head[4:].replace("-", ":")), 60, None
    if head.startswith("alias-"):
        return None, 60, head[6:] + ".example"
    if head.startswith("rebind-"):
        asked[head] = asked.get(head, 0) + 1
        bad = head.split("-", 2)[2].replace("-", ".")
        return (("203.0.113.10", None) if asked[head] == 1 else (bad, None)), 0, None
    if name in ("b.wild.example", "c.b.wild.example"):
        return ("203.0.113.12", "2001:db8::12"), 60, None
    return (known.get(head) if rest == "example" else None), 60, None


def answer(query):
    end, labels = 12, []
    while query[end]:
        labels.append(query[end + 1:end + 1 + query[end]])
        end += 1 + query[end]
    kind, end = struct.unpack(">H", query[end + 1:end + 3])[0], end + 5
    name, records = b".".join(labels).decode().lower(), []
    seen.append(f"? {name} {kind}")
    def encoded(name):
        return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    def add(owner, kind, ttl, data):
        records.append(encoded(owner) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data)
    found, ttl, alias = addresses(name)
    if alias:
        add(name, 5, ttl, encoded(alias))
        found, ttl, _ = addresses(alias)
        name = alias
    for family, number, index in ((socket.AF_INET, 1, 0), (socket.AF_INET6, 28, 1)):
        if found and kind == number and found[index]:
            add(name, kind, ttl, socket.inet_pton(family, found[index]))
    code = 0 if found else 3
    head = query[:2] + bytes([0x81, 0x80 | code]) + struct.pack(">HHHH", 1, len(records), 0, 0)
    return head + query[12:end] + b"".join(records)


class Names(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, source):
        self.transport.sendto(answer(query), source)


def page(path, host, at, base):
    if path == "/":
        return 200, {}, f"hello {host} at {at}\n".encode()
    if path.startswith("/redirect?"):
        return 302, {"Location": path.split("?", 1)[1]}, b""
    if path == "/large":
        return 200, {}, b"x" * (32 << 20)
    made = files.get(path.split("?")[0])
    if callable(made):
        made = made(base)
    return (200, {}, made) if made is not None else (404, {}, b"")


async def http(reader, writer, line, at):
    while line:
        headers = {}
        while (header := await reader.readline()).strip():
            name, _, value = header.decode("latin1").partition(":")
            headers[name.lower()] = value.strip()
        method, target = line.decode("latin1").split()[:2]
        host = headers.get("host", "")
        if target.startswith("http://"):
            target = "/" + target.split("/", 3)[3]
        await reader.readexactly(int(headers.get("content-length", 0)))
        seen.append(f"{method} {host} {target}")
        code, extra, body = page(target, host, at, f"http://{host}")
        kind = "text/html" if target.endswith("/") else "application/octet-stream"
        more = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
        head = f"HTTP/1.1 {code} Fine\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        writer.write(head.encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        line = await reader.readline()


async def talk(reader, writer):
    at, port = writer.get_extra_info("sockname")[:2]
    if port != 9:
        seen.append(f"{at} {port}")
    if port == 9:
        writer.write(json.dumps({"seen": seen, **paused}).encode())
    elif port == 7000:
        # Never reads, and says so when it is told about the end.
        writer.transport.pause_reading()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await never.wait()
    elif port == 7001:
        # Says something for as long as somebody reads.
        paused["written"] = 0
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()
            paused["written"] += 65536
    elif port == 7002:
        # Says back what it hears, a byte at a time.
        while byte := await reader.read(1):
            writer.write(byte)
            await writer.drain()
    elif port == 53:
        while True:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            said = answer(await reader.readexactly(length))
            writer.write(struct.pack(">H", len(said)) + said)
    elif port == 22:
        writer.write(b"SSH-2.0-world\r\n")
        await writer.drain()
        await reader.read()
    else:
        line = await reader.readline() if port != 443 else b"\x16" + (await reader.read(1))[1:]
        if line.split(b" ")[0].isupper() and b"HTTP/" in line:
            await http(reader, writer, line, at)
        elif line:
            writer.write(b"reached " + at.encode() + b"\n")
            await writer.drain()
            while byte := await reader.read(4096):
                writer.write(byte)
                await writer.drain()


async def meet(reader, writer):
    try:
        await talk(reader, writer)
    except (OSError, ValueError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def packages():
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("worldly.py", "word = 'installed'\n")
        about = "worldly-1.0.dist-info/"
        archive.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: worldly\nVersion: 1.0\n")
        archive.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(about + "RECORD", "worldly.py,,\n" + about + "METADATA,,\n" + about + "WHEEL,,\n" + about + "RECORD,,\n")
    name = "worldly-1.0-py3-none-any.whl"
    files["/simple/worldly/"] = f'<!DOCTYPE html><a href="/{name}">{name}</a>'.encode()
    files["/" + name] = wheel.getvalue()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        for path, text in (("package.json", '{"name":"worldly","version":"1.0.0"}'), ("index.js", "module.exports='installed'")):
            member = tarfile.TarInfo("package/" + path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    files["/worldly-1.0.0.tgz"] = tar.getvalue()
    def about(base):
        dist = {"tarball": base + "/worldly-1.0.0.tgz"}
        version = {"name": "worldly", "version": "1.0.0", "dist": dist}
        return json.dumps({"name": "worldly", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}).encode()
    files["/worldly"] = about
    repository = os.environ.get("WORLD_REPOSITORY")
    for place, _, names in os.walk(repository) if repository else ():
        for name in names:
            path = os.path.join(place, name)
            files["/repository.git/" + os.path.relpath(path, repository)] = open(path, "rb").read()


async def main():
    loop = asyncio.get_running_loop()
    for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for port in PORTS:
            await asyncio.start_server(meet, every, port, family=family, backlog=4096, limit=1 << 20)
        # Answers come from the address that was asked, which one that stands for all would not do.
        for address in {"0.0.0.0": ("203.0.113.53",), "::": ("2001:db8::53",)}[every] if sys.argv[1] == "world" else ():
            await loop.create_datagram_endpoint(Names, (address, 53), family=family)
    print("ready", flush=True)
    await never.wait()


packages()
asyncio.run(main())

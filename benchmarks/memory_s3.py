"""An S3 server for benchmarks that keeps objects in memory: no credentials, no checksums, no disk.

    python benchmarks/memory_s3.py PORT MIB

A benchmark against it measures the client and the loopback, without a server's hashing, disk or page faults: MIB of
memory are touched before it listens. It serves what `gog.store` and boto3's transfers request: objects, ranges,
multipart uploads, preconditions, listings.
"""

from __future__ import annotations

import socket
import sys
import threading
import urllib.parse

CHUNK = 1 << 20
PIECE = 1 << 22
Body = list[memoryview]
free: list[memoryview] = []
"""Memory that was touched before: the first touch costs more than the transfer."""
objects: dict[str, list[Body]] = {}
uploads: dict[str, dict[int, Body]] = {}
checksums: dict[str, str] = {}
lock = threading.Lock()


def serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            data = connection.recv(1 << 16)
            if not data:
                return
            rest += data
        head, rest = rest.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if headers.get("expect") == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, rest = receive(connection, int(headers.get("content-length", 0)), rest)
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        answer(connection, method, parts.path, query, headers, body)


def receive(connection: socket.socket, size: int, rest: bytes) -> tuple[Body, bytes]:
    """The body in pieces, and the bytes after it."""
    body: Body = [memoryview(bytearray(rest[:size]))]
    missing = size - len(body[0])
    while missing > 0:
        with lock:
            piece = (free.pop() if free else memoryview(bytearray(PIECE)))[: min(PIECE, missing)]
        got = 0
        while got < len(piece):
            got += connection.recv_into(piece[got:], min(CHUNK, len(piece) - got))
        body.append(piece)
        missing -= got
    return body, rest[size:]


def forget(key: str) -> None:
    """Deletes an object; its memory is reused."""
    for body in objects.pop(key, ()):
        free.extend(memoryview(piece.obj) for piece in body if len(piece.obj) == PIECE)


def answer(
    connection: socket.socket, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: Body
) -> None:
    if method == "POST" and "uploads" in query:
        uploads[key] = {}
        reply(connection, 200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    elif method == "POST":
        pieces = uploads.pop(key)
        objects[key] = [pieces[number] for number in sorted(pieces)]
        checksums[key] = headers.get("x-amz-checksum-crc64nvme", "")
        reply(connection, 200, b'<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')
    elif method == "PUT" and "partNumber" in query:
        uploads[key][int(query["partNumber"])] = body
        reply(connection, 200, ETag='"part"')
    elif method == "PUT":
        with lock:
            allowed = not (headers.get("if-none-match") and key in objects)
            allowed = allowed and headers.get("if-match", '"x"') == '"x"'
            if allowed:
                objects[key] = [body]
                checksums[key] = headers.get("x-amz-checksum-crc64nvme", "")
        reply(connection, 200 if allowed else 412, ETag='"x"')
    elif method == "DELETE":
        forget(key)
        reply(connection, 204)
    elif "list-type" in query:
        reply(connection, 200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    elif key in objects:
        give(connection, method, key, headers.get("range", ""))
    else:
        reply(connection, 404)


def give(connection: socket.socket, method: str, key: str, asked: str) -> None:
    parts = [piece for body in objects[key] for piece in body]
    total = sum(map(len, parts))
    start, _, end = asked.removeprefix("bytes=").partition("-")
    first, last = int(start or 0), int(end or total - 1)
    fields = {"Content-Length": str(last + 1 - first), "ETag": '"x"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    if asked:
        fields["Content-Range"] = f"bytes {first}-{last}/{total}"
    if checksums.get(key):
        fields["x-amz-checksum-crc64nvme"] = checksums[key]
    reply(connection, 206 if asked else 200, **fields)
    before = 0
    for part in parts if method == "GET" else ():
        low, high = max(first, before), min(last + 1, before + len(part))
        if low < high:
            connection.sendall(part[low - before : high - before])
        before += len(part)


def reply(connection: socket.socket, status: int, body: bytes = b"", **headers: str) -> None:
    headers = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"HTTP/1.1 {status} Answer\r\n{lines}\r\n".encode() + body)


def main(port: int, room: int) -> None:
    free.extend(memoryview(bytearray(b"x") * PIECE) for _ in range(room // PIECE))
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) << 20)

"""A bucket of an S3-compatible service of our own (moto), for the contents of files."""

import contextlib
import dataclasses
import http.client
import logging
import pathlib
import re
import typing

from moto.server import ThreadedMotoServer

NAME = "interlock-interop"
PREFIX = "files"
# It serves whoever names a region and a service as a signature does (AWS Signature Version 4).
SIGNED = "AWS4-HMAC-SHA256 Credential=interop/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@dataclasses.dataclass(frozen=True)
class Bucket:
    host: str
    port: int
    credentials_file: pathlib.Path

    def settings(self) -> dict[str, str]:
        """What the gateway's environment says of it."""
        prefix = "INTERLOCK_GATEWAY_FILES_"
        return {
            f"{prefix}BUCKET": f"{NAME}/{PREFIX}",
            f"{prefix}ENDPOINT": f"http://{self.host}:{self.port}",
            f"{prefix}CREDENTIALS_FILE": str(self.credentials_file),
        }

    def objects(self) -> dict[str, int]:
        """What it holds: sizes by key."""
        listed = self.ask("GET", f"/{NAME}?list-type=2")
        found = re.findall(r"<Key>(.*?)</Key>.*?<Size>(\d+)</Size>", listed)
        return {key: int(size) for key, size in found}

    def uploads(self) -> int:
        """How many uploads in parts have begun and not ended."""
        return self.ask("GET", f"/{NAME}?uploads").count("<Upload>")

    def ask(self, method: str, path: str) -> str:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"authorization": SIGNED})
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
        return text


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> typing.Iterator[Bucket]:
    """Serves an empty bucket, in memory, until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    credentials = folder / "bucket.credentials"
    credentials.touch(mode=0o600)
    credentials.write_text("interop\nno secret: the service takes any\n")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        bucket = Bucket(*server.get_host_and_port(), credentials)
        bucket.ask("PUT", f"/{NAME}")
        yield bucket
    finally:
        server.stop()

"""The wire as a Python program sees it: generated code, TLS channels, metadata, refusals."""

import dataclasses
import pathlib
import shutil
import sys
import urllib.parse

import grpc

DEADLINE_S = 20


def generate(protos: pathlib.Path, out: pathlib.Path) -> None:
    """Makes Python code of every .proto under `protos`, and lets it be imported."""
    from importlib import resources

    from grpc_tools import protoc

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    known = resources.files("grpc_tools") / "_proto"
    files = sorted(str(p) for p in protos.rglob("*.proto"))
    into = [f"--python_out={out}", f"--grpc_python_out={out}"]
    failed = protoc.main(["protoc", f"-I{protos}", f"-I{known}", *into, *files])
    if failed:
        raise SystemExit("grpc_tools.protoc does not take our protos")
    sys.path.insert(0, str(out))


def channel(address: str, ca_file: pathlib.Path, bearer: str | None = None) -> grpc.Channel:
    """A TLS channel; with `bearer`, each of its calls carries `authorization: Bearer …`."""
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_file.read_bytes())
    if bearer is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(bearer))
    return grpc.secure_channel(urllib.parse.urlsplit(address).netloc, credentials)


def cookie(call: grpc.Call) -> str:
    """The cookie that an answer hands out, as the next call sends it."""
    found = [value for key, value in call.initial_metadata() if key == "set-cookie"]
    assert len(found) == 1, f"{len(found)} cookies in initial metadata"
    return found[0].split(";", 1)[0]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a call was refused: its code, `google.rpc.ErrorInfo` and the other details."""

    code: grpc.StatusCode
    reason: str
    domain: str
    details: tuple

    def detail(self, message):
        """The one detail of that type."""
        for packed in self.details:
            if packed.Is(message.DESCRIPTOR):
                packed.Unpack(message)
                return message
        raise AssertionError(f"no {message.DESCRIPTOR.full_name} in {[d.type_url for d in self.details]}")


def refusal(error: grpc.RpcError) -> Refusal:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    details = tuple(status.details) if status else ()
    bare = Refusal(error.code(), "", "", details)
    info = bare.detail(error_details_pb2.ErrorInfo())
    return Refusal(error.code(), info.reason, info.domain, details)


def refused(call) -> Refusal:
    """Calls, and expects a refusal."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return refusal(error)
    raise AssertionError(f"not refused: {type(answer).__name__}")


def expect(refusal: Refusal, code: grpc.StatusCode, reason: str) -> None:
    seen = (refusal.code.name, refusal.reason, refusal.domain)
    assert seen == (code.name, reason, "interlock"), f"refused with {seen}"

"""The story that each client has to manage: sign in, bind, submit, follow, be refused, go on."""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback
import uuid

import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import wire
from interlock.auth.v1 import identity_pb2, identity_pb2_grpc, owner_session_pb2, owner_session_pb2_grpc
from interlock.errors.v1 import reason_pb2
from interlock.gateway.v1 import agent_pb2, agent_pb2_grpc, event_pb2, file_pb2, file_pb2_grpc, job_pb2, job_pb2_grpc
from interlock.gateway.v1 import session_pb2, session_pb2_grpc
from interlock.options.v1 import policy_pb2
from world import World

OURS = {
    "auth": ["IdentityService", "OwnerSessionService", "ProjectService", "RoleTokenService"],
    "gateway": ["AgentService", "FileService", "JobService", "SessionService", "WorkerService"],
}
PAYLOAD = b"a line\nand \xff another"
# The gateway writes to a bucket in parts of 5 MiB.
SIZES = {"empty": 0, "one": 1, "out/three-parts": 12 << 20}
PART = 256 << 10


def tell(world: World, bucket=None) -> int:
    """Tells it to the end or to the first step that fails: each rests on those before it."""
    story = Story(world, bucket)
    steps = [
        story.health_says_serving,
        story.a_wrong_password_is_refused,
        story.sign_in,
        story.no_credential_is_refused,
        story.reflection_lists_services_and_policies,
        story.buf_lists_and_describes,
        story.create_a_session,
        story.attach,
        story.submit_once,
        story.follow_the_log,
        story.resume_after_a_place,
        story.a_client_stores_its_cursor,
        story.busy_explains_itself,
        story.attach_when_the_job_has_ended,
        story.files_come_back_as_they_were,
        story.a_put_that_is_cut_off_leaves_nothing,
        story.deleted_files_are_gone,
        story.logout_ends_the_stream,
    ]
    held = 0
    for step in steps:
        began = time.monotonic()
        try:
            saw = step()
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED  {step.__name__}")
            break
        held += 1
        print(f"held    {step.__name__}: {saw} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
    print(f"{held} of {len(steps)} held")
    return 0 if held == len(steps) else 1


class Story:
    """What the steps hand on."""

    def __init__(self, world: World, bucket=None):
        self.world = world
        # Where the files are, if we may look.
        self.bucket = bucket
        self.channel = functools.partial(wire.channel, ca_file=world.ca_file)
        self.owner_sessions = owner_session_pb2_grpc.OwnerSessionServiceStub(self.channel(world.auth))
        self.scope = [("x-interlock-project", world.project_id)]
        self.agent_id = f"interop-{uuid.uuid4().hex[:8]}"

    def call(self, method, request, metadata=()):
        return method(request, timeout=wire.DEADLINE_S, metadata=[*self.scope, *metadata])

    # Anyone.

    def health_says_serving(self):
        for address in (self.world.auth, self.world.gateway):
            health = health_pb2_grpc.HealthStub(self.channel(address))
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=wire.DEADLINE_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
        return "SERVING, SERVING"

    def a_wrong_password_is_refused(self):
        request = owner_session_pb2.LoginRequest(username=self.world.owner, password="not the password")
        refusal = wire.refused(lambda: self.call(self.owner_sessions.Login, request))
        wire.expect(refusal, StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS")
        return refusal.reason

    def sign_in(self):
        request = owner_session_pb2.LoginRequest(username=self.world.owner, password=self.world.password())
        login = self.call(self.owner_sessions.Login, request)
        assert login.username == self.world.owner, login.username
        self.bearer = login.access_token
        self.signed_in = self.channel(self.world.auth, bearer=self.bearer)
        gateway = self.channel(self.world.gateway, bearer=self.bearer)
        self.sessions = session_pb2_grpc.SessionServiceStub(gateway)
        self.jobs = job_pb2_grpc.JobServiceStub(gateway)
        self.files = file_pb2_grpc.FileServiceStub(gateway)
        self.agents = agent_pb2_grpc.AgentServiceStub(gateway)
        identity = identity_pb2_grpc.IdentityServiceStub(self.signed_in)
        principal = self.call(identity.WhoAmI, identity_pb2.WhoAmIRequest()).principal
        assert principal.kind == identity_pb2.CREDENTIAL_KIND_OWNER_SESSION, principal.kind
        return f"{principal.owner_id} as {principal.role}"

    def no_credential_is_refused(self):  # SW-11
        stub = session_pb2_grpc.SessionServiceStub(self.channel(self.world.gateway))
        unary = lambda: self.call(stub.ListSessions, session_pb2.ListSessionsRequest())
        stream = lambda: next(self.call(stub.StreamEvents, session_pb2.StreamEventsRequest(session_id="ses_x")))
        for call in (unary, stream):
            wire.expect(wire.refused(call), StatusCode.UNAUTHENTICATED, "PROVIDER_AUTH_FAILED")
        return "unary and streaming"

    # Discovery.

    def reflection_lists_services_and_policies(self):
        for package, address in (("auth", self.world.auth), ("gateway", self.world.gateway)):
            known = ProtoReflectionDescriptorDatabase(self.channel(address, bearer=self.bearer))
            found = set(known.get_services())
            wanted = {f"interlock.{package}.v1.{name}" for name in OURS[package]} | {"grpc.health.v1.Health"}
            assert wanted <= found, f"{sorted(wanted - found)} not in {sorted(found)}"
            if package == "auth":
                # Listed, since one server has one reflection; its policy says where it is served.
                trust = known.FindFileContainingSymbol("interlock.auth.v1.TrustService").service
                for method in (m for service in trust for m in service.method):
                    listeners = method.options.Extensions[policy_pb2.policy].listeners
                    assert list(listeners) == [policy_pb2.LISTENER_INTERNAL], f"{method.name}: {listeners}"
        file = known.FindFileContainingSymbol("interlock.gateway.v1.SessionService")
        methods = {m.name: m.options.Extensions[policy_pb2.policy] for s in file.service for m in s.method}
        assert methods["AttachSession"].audit == "session.attach", methods["AttachSession"]
        return f"{len(methods)} methods of SessionService with their policies"

    def buf_lists_and_describes(self):
        services = self.buf("--list-services").split()
        assert "interlock.gateway.v1.JobService" in services, services
        methods = self.buf("--list-methods").split()
        assert "interlock.gateway.v1.SessionService/AttachSession" in methods, methods
        told = self.buf("--data", "{}", path="/interlock.gateway.v1.SessionService/ListSessions")
        assert isinstance(json.loads(told or "{}"), dict), told
        return f"{len(services)} services, {len(methods)} methods, and a call"

    def buf(self, *arguments, path=""):
        buf = pathlib.Path(sys.executable).with_name("buf")
        with tempfile.TemporaryDirectory() as folder:
            # A file, since others can read a process's arguments.
            headers = pathlib.Path(folder) / "headers"
            headers.touch(mode=0o600)
            lines = [f"authorization: Bearer {self.bearer}", *(f"{k}: {v}" for k, v in self.scope)]
            headers.write_text("\n".join(lines) + "\n")
            command = [buf, "curl", "--protocol", "grpc", "--cacert", self.world.ca_file]
            command += ["--header", f"@{headers}", "--reflect-header", "*", *arguments]
            command += [self.world.gateway.rstrip("/") + path]
            own = {**os.environ, "HOME": folder}
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=own
            )
        assert done.returncode == 0, f"buf curl: {done.stderr}"
        return done.stdout

    # The work.

    def create_a_session(self):
        request = session_pb2.CreateSessionRequest(request_id=uuid.uuid4().hex)
        metadata = {"timeout": wire.DEADLINE_S, "metadata": self.scope}
        answer, call = self.sessions.CreateSession.with_call(request, **metadata)
        self.session_id = answer.session.session_id
        self.cookie = wire.cookie(call)
        assert self.cookie.startswith(f"__Host-interlock_{self.session_id}="), "the cookie has another name"
        again, call = self.sessions.CreateSession.with_call(request, **metadata)
        assert again.session.session_id == self.session_id, "a retry made another session"
        assert wire.cookie(call) == self.cookie, "a retry handed out another cookie"
        return "one session for two calls with one request id"

    def attach(self):
        binding = self.attach_to(self.world.agent_id).session.binding
        assert (binding.agent_id, binding.project_id) == (self.world.agent_id, self.world.project_id), binding
        return f"epoch {binding.epoch}"

    def attach_to(self, agent_id):
        request = session_pb2.AttachSessionRequest(
            session_id=self.session_id, agent_id=agent_id, project_id=self.world.project_id
        )
        return self.call(self.sessions.AttachSession, request)

    def submit_once(self):
        request = job_pb2.SubmitJobRequest(session_id=self.session_id, request_id="interop-1", payload=PAYLOAD)
        self.job_id = self.call(self.jobs.SubmitJob, request).job.job_id
        again = self.call(self.jobs.SubmitJob, request).job.job_id
        assert again == self.job_id, "a retry queued another job"
        request.payload = b"another"
        refusal = wire.refused(lambda: self.call(self.jobs.SubmitJob, request))
        wire.expect(refusal, StatusCode.ABORTED, "REQUEST_ID_REUSED")
        job = self.call(self.jobs.GetJob, job_pb2.GetJobRequest(job_id=self.job_id)).job
        assert job.payload == PAYLOAD and job.state == event_pb2.JOB_STATE_QUEUED, job.state
        return "one job for two calls; another payload refused"

    # The log.

    def events(self, after, enough):
        """Events after a place, until one is `enough`; then it hangs up."""
        request = session_pb2.StreamEventsRequest(session_id=self.session_id, after=after)
        stream = self.call(self.sessions.StreamEvents, request)
        opened = next(stream)
        assert opened.WhichOneof("message") == "opened", opened
        found = []
        for message in stream:
            if message.WhichOneof("message") == "event":
                found.append(message.event)
                if enough(message.event):
                    break
        stream.cancel()
        return found

    def follow_the_log(self):
        queued = lambda event: event.WhichOneof("kind") == "job_queued"
        self.log = self.events(0, queued)
        kinds = [event.WhichOneof("kind") for event in self.log]
        assert kinds == ["session_created", "session_attached", "job_queued"], kinds
        assert [event.sequence for event in self.log] == [1, 2, 3], self.log
        assert self.log[-1].job_queued.job_id == self.job_id, self.log[-1]
        return ", ".join(kinds)

    def resume_after_a_place(self):
        rest = self.events(1, lambda event: event.sequence == self.log[-1].sequence)
        assert rest == self.log[1:], rest
        return f"after 1 came {[event.sequence for event in rest]}"

    def a_client_stores_its_cursor(self):
        stub = session_pb2_grpc.SessionServiceStub(self.channel(self.world.gateway))
        cookie = [("cookie", self.cookie)]
        stored = self.call(stub.Ack, session_pb2.AckRequest(session_id=self.session_id, sequence=2), cookie)
        assert stored.sequence == 2, stored
        stored = self.call(stub.Ack, session_pb2.AckRequest(session_id=self.session_id, sequence=1), cookie)
        assert stored.sequence == 2, "the cursor went back"
        request = session_pb2.StreamEventsRequest(session_id=self.session_id, from_cursor=True)
        stream = self.call(stub.StreamEvents, request, cookie)
        first = next(m.event for m in stream if m.WhichOneof("message") == "event")
        stream.cancel()
        assert first.sequence == 3, first
        return "by cookie alone; streaming went on after it"

    # The guard.

    def busy_explains_itself(self):  # SW-26
        self.call(self.agents.SetAgent, agent_pb2.SetAgentRequest(agent_id=self.agent_id))
        refusal = wire.refused(lambda: self.attach_to(self.agent_id))
        wire.expect(refusal, StatusCode.FAILED_PRECONDITION, "SESSION_BUSY")
        busy = refusal.detail(reason_pb2.SessionBusy())
        assert busy.kind == reason_pb2.BUSY_KIND_REBIND, busy
        assert (busy.agent_id, busy.queued, busy.running) == (self.world.agent_id, 1, 0), busy
        assert [(job.job_id, job.state) for job in busy.jobs] == [(self.job_id, "queued")], busy
        assert not self.attach_to(self.world.agent_id).changed, "the same binding again is no change"
        return f"{busy.queued} queued, {busy.running} running; the same binding stays allowed"

    def attach_when_the_job_has_ended(self):  # SW-34
        self.call(self.jobs.CancelJob, job_pb2.CancelJobRequest(job_id=self.job_id))
        job = self.call(self.jobs.WaitJob, job_pb2.WaitJobRequest(job_id=self.job_id)).job
        assert job.state == event_pb2.JOB_STATE_CANCELLED, job.state
        answer = self.attach_to(self.agent_id)
        assert answer.changed and answer.session.binding.agent_id == self.agent_id, answer
        return f"epoch {answer.session.binding.epoch}"

    # Files.

    def put(self, name, parts):
        def messages():
            yield file_pb2.PutFileRequest(session_id=self.session_id, name=name)
            for part in parts:
                yield file_pb2.PutFileRequest(data=part)

        return self.call(self.files.PutFile, messages())

    def listed(self):
        found = self.call(self.files.ListFiles, file_pb2.ListFilesRequest(session_id=self.session_id)).files
        return {file.name: file.size for file in found}

    def sizes_in_bucket(self):
        return sorted(self.bucket.objects().values()) if self.bucket else None

    def files_come_back_as_they_were(self):  # SF-01
        for name, size in SIZES.items():
            contents = os.urandom(size)
            parts = (contents[at : at + PART] for at in range(0, size, PART))
            stored = self.put(name, parts).file
            assert (stored.size, stored.sha256) == (size, hashlib.sha256(contents).digest()), stored
            request = file_pb2.GetFileRequest(session_id=self.session_id, name=name)
            got = b"".join(message.data for message in self.call(self.files.GetFile, request))
            assert got == contents, f"{name} came back otherwise, {len(got)} bytes"
        assert self.listed() == SIZES, self.listed()
        assert self.sizes_in_bucket() in (None, sorted(SIZES.values())), self.bucket.objects()
        where = "in a bucket" if self.bucket else "wherever the gateway keeps them"
        return f"{', '.join(map(str, SIZES.values()))} bytes, {where}"

    def a_put_that_is_cut_off_leaves_nothing(self):  # SF-04
        enough = 11 << 20

        def breaks_off():
            yield from (bytes(PART) for _ in range(enough // PART))
            # More than one part of the bucket's has been sent by now; the client dies.
            raise ConnectionError("cut off")

        try:
            self.put("half", breaks_off())
        except grpc.RpcError:
            pass
        else:
            raise AssertionError("a put that was cut off was answered")
        assert self.listed() == SIZES, self.listed()
        deadline = time.monotonic() + wire.DEADLINE_S
        while self.bucket and (self.bucket.uploads() or self.sizes_in_bucket() != sorted(SIZES.values())):
            assert time.monotonic() < deadline, f"left: {self.bucket.uploads()} uploads, {self.bucket.objects()}"
            time.sleep(0.05)
        return f"after {enough >> 20} MiB"

    def deleted_files_are_gone(self):
        for name in SIZES:
            request = file_pb2.DeleteFileRequest(session_id=self.session_id, name=name)
            assert self.call(self.files.DeleteFile, request).deleted, name
        assert self.listed() == {}, self.listed()
        request = file_pb2.GetFileRequest(session_id=self.session_id, name="one")
        wire.expect(wire.refused(lambda: next(self.call(self.files.GetFile, request))), StatusCode.NOT_FOUND, "NOT_FOUND")
        deadline = time.monotonic() + wire.DEADLINE_S
        while self.sizes_in_bucket():
            assert time.monotonic() < deadline, f"left in the bucket: {self.bucket.objects()}"
            time.sleep(0.05)
        return "rows and contents"

    # The end.

    def logout_ends_the_stream(self):
        request = session_pb2.StreamEventsRequest(session_id=self.session_id)
        stream = self.call(self.sessions.StreamEvents, request)
        for message in stream:
            if message.WhichOneof("message") == "caught_up":
                break
        owner_sessions = owner_session_pb2_grpc.OwnerSessionServiceStub(self.signed_in)
        reached = self.call(owner_sessions.Logout, owner_session_pb2.LogoutRequest()).reached
        wire.expect(wire.refused(lambda: next(stream)), StatusCode.UNAUTHENTICATED, "REVOKED")
        refusal = wire.refused(lambda: self.call(self.sessions.ListSessions, session_pb2.ListSessionsRequest()))
        wire.expect(refusal, StatusCode.UNAUTHENTICATED, "PROVIDER_AUTH_FAILED")
        return f"{reached.acknowledged} acknowledged, {reached.streams_closed} streams closed"

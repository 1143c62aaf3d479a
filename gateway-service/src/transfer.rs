//! PutFile and GetFile: how the contents of files come and go.
//!
//! Both stand on the caller's credential for as long as they last (see [`crate::standing`]): a revocation ends them.
//! What a file is, and who may have it, is decided by the verbs of [`crate::file`]; contents go by in parts, and no
//! more than two of them are held.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use interlock_kit::{
    authn::Call,
    error::{Error, Reason},
    field,
};
use interlock_proto::gateway::v1::{GetFileResponse, PutFileRequest};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

use crate::{
    admit::{self, Admitted},
    caller::Caller,
    file::{AbandonPut, BeginPut, File, FilesOf, FinishPut, Forget, OpenFile, Stored},
    grpc::{Front, draining, refuse, wire},
    ids::{FileId, FileName, ProjectId, SessionId},
    limits::FILE_PART_BYTES_MAX,
    outlet::{self, Answers, Gone, Outlet, WhenLapsed, ground_gone},
    standing::Standing,
    store::Told,
    stream::payer,
    streams::Opened,
    vault::{Writer, damaged},
    waiter::Ground,
};

/// How long the next message of a caller may take.
const NEXT_WITHIN: Duration = Duration::from_secs(30);
/// Messages between the reader of the contents and the connection.
const ROOM: usize = 4;
/// The contents of one message.
const PIECE_BYTES: usize = 64 * 1024;
/// After so many messages it is decided again whether the caller may have the rest: 1 MiB.
const LOOK_EVERY: usize = 16;
/// What a project token needs for a file on its way out, to open it and to keep it.
const SCOPE: &str = "sessions:read";

/// What the first message of a put says.
struct Header {
    of: FilesOf,
    name: FileName,
    size: Option<u64>,
    hash: Option<[u8; 32]>,
}

/// Stores a file.
///
/// # Errors
/// What the verbs refuse; `INVALID_FIELD` where the contents are not what the first message said; `LIMIT_REACHED`;
/// `REVOKED`, `TOKEN_EXPIRED`, `DRAINING`, or `DEADLINE_EXCEEDED` where they come too slowly.
pub(crate) async fn put(
    front: &Arc<Front>,
    call: &Call,
    admitted: &Admitted,
    mut requests: Streaming<PutFileRequest>,
) -> Result<Told<Stored>, Error> {
    if front.draining.is_cancelled() {
        return Err(draining());
    }
    let until = Instant::now() + front.shell.limits().upload_time_max;
    let standing = admitted.standing(&front.verifier);
    let ground = Arc::new(Ground::new(standing));
    let first = next(front, &ground, &mut requests, until).await?;
    let (header, data) = read_first(first.unwrap_or_default())?;
    let caller = of_whom(admitted, &header.of);
    let _parked = front.streams.place(&payer_of(&caller, &header.of))?;
    let id = FileId::new();
    let writer = front.vault.writer(&id)?;
    let begin =
        BeginPut { of: header.of.clone(), id: id.clone(), name: header.name.clone(), size: header.size };
    let begun = front.run(call, &caller, begin).await?.out;
    // What ends with the membership ends from here on: the verb that finishes decides on it again.
    ground.standing().enter(begun.project.as_ref().map(ProjectId::as_str));
    let mut coming = Coming::new(front, begun.session, id.clone(), &ground, writer);
    let (size, hash) = coming.receive(&header, data, &mut requests, until).await?;
    coming.complete().await?;
    let caller = front.gate.recheck(call, &caller)?;
    let finish = FinishPut { of: header.of, id, size, hash, ground: Arc::clone(&ground) };
    let stored = front.run(call, &caller, finish).await?;
    coming.stored = true;
    if let Some(replaced) = stored.out.replaced.clone() {
        take_away(front, stored.out.file.session.clone(), replaced);
    }
    Ok(stored)
}

/// The caller for whom the files of a session are looked for.
pub(crate) fn of_whom(admitted: &Admitted, of: &FilesOf) -> Arc<Caller> {
    match of {
        FilesOf::Session(session) => admitted.for_session(session),
        FilesOf::Attempt(_) => Arc::clone(&admitted.caller),
    }
}

fn payer_of(caller: &Caller, of: &FilesOf) -> String {
    match of {
        FilesOf::Session(session) => payer(caller, session),
        FilesOf::Attempt(held) => {
            caller.owner().map_or_else(|| held.job.to_string(), |owner| owner.to_string())
        }
    }
}

fn read_first(first: PutFileRequest) -> Result<(Header, Vec<u8>), Error> {
    let of = wire::files_of(first.session_id, first.job_id, first.fencing_token)?;
    let name = FileName::parse(first.name)?;
    let hash = match first.sha256.len() {
        0 => None,
        _ => Some(
            first
                .sha256
                .as_ref()
                .try_into()
                .map_err(|_| Error::invalid_field("sha256", "32 bytes, or none"))?,
        ),
    };
    let data = part(first.data.into())?;
    Ok((Header { of, name, size: first.size, hash }, data))
}

fn read_part(message: PutFileRequest) -> Result<Vec<u8>, Error> {
    let PutFileRequest { session_id, job_id, fencing_token, name, size, sha256, data } = message;
    let first_alone = [
        ("session_id", session_id.is_empty()),
        ("job_id", job_id.is_empty()),
        ("fencing_token", fencing_token == 0),
        ("name", name.is_empty()),
        ("size", size.is_none()),
        ("sha256", sha256.is_empty()),
    ];
    match first_alone.iter().find(|(_, absent)| !absent) {
        Some((field, _)) => Err(Error::invalid_field(*field, "only in the first message")),
        None => part(data.into()),
    }
}

fn part(data: Vec<u8>) -> Result<Vec<u8>, Error> {
    if data.len() > FILE_PART_BYTES_MAX {
        return Err(Error::invalid_field("data", format!("0 to {FILE_PART_BYTES_MAX} bytes")));
    }
    Ok(data)
}

/// The next message, while the ground holds.
async fn next(
    front: &Front,
    ground: &Ground,
    requests: &mut Streaming<PutFileRequest>,
    until: Instant,
) -> Result<Option<PutFileRequest>, Error> {
    tokio::select! {
        biased;
        reason = ground.standing().ended() => Err(ground_gone(reason)),
        () = front.ending.cancelled() => Err(draining()),
        message = timeout_at(until.min(Instant::now() + NEXT_WITHIN), requests.message()) => match message {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(cut_off(&status)),
            Err(_) => Err(Error::new(Reason::DeadlineExceeded, "the file came too slowly")),
        },
    }
}

/// A message that cannot be read, or none any more: the caller has gone, and nobody hears of it.
fn cut_off(status: &Status) -> Error {
    field::unreadable(status).unwrap_or_else(|| Error::new(Reason::DeadlineExceeded, "the call was given up"))
}

/// A file whose contents are coming. Dropped before it is stored, all of it is taken away.
struct Coming {
    front: Arc<Front>,
    session: SessionId,
    id: FileId,
    ground: Arc<Ground>,
    writer: Option<Writer>,
    stored: bool,
}

impl Coming {
    fn new(front: &Arc<Front>, session: SessionId, id: FileId, ground: &Arc<Ground>, writer: Writer) -> Self {
        let (front, ground) = (Arc::clone(front), Arc::clone(ground));
        Self { front, session, id, ground, writer: Some(writer), stored: false }
    }

    /// Takes all contents. Answers with their size and hash.
    async fn receive(
        &mut self,
        header: &Header,
        first: Vec<u8>,
        requests: &mut Streaming<PutFileRequest>,
        until: Instant,
    ) -> Result<(u64, [u8; 32]), Error> {
        let most = self.front.shell.limits().file_bytes_max;
        let (mut size, mut hash, mut data) = (0_u64, Sha256::new(), first);
        loop {
            size += data.len() as u64;
            if size > most {
                return Err(Error::new(Reason::LimitReached, format!("a file has at most {most} bytes")));
            }
            if header.size.is_some_and(|said| size > said) {
                return Err(Error::invalid_field("size", "how many bytes came"));
            }
            hash.update(&data);
            if !data.is_empty() {
                let writer =
                    self.writer.as_mut().ok_or_else(|| Error::internal("contents after their end"))?;
                writer.write(&data).await?;
            }
            let Some(message) = next(&self.front, &self.ground, requests, until).await? else { break };
            data = read_part(message)?;
        }
        if header.size.is_some_and(|said| size != said) {
            return Err(Error::invalid_field("size", "how many bytes came"));
        }
        let hash: [u8; 32] = hash.finalize().into();
        if header.hash.is_some_and(|said| hash != said) {
            return Err(Error::invalid_field("sha256", "that of what came"));
        }
        Ok((size, hash))
    }

    /// When this returns, all contents are safe.
    async fn complete(&mut self) -> Result<(), Error> {
        match self.writer.take() {
            Some(writer) => writer.finish().await,
            None => Err(Error::internal("contents after their end")),
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if self.stored {
            return;
        }
        // What still runs for this call stores nothing more; then what there is of it goes. Where that fails, a sweep
        // takes it away.
        self.ground.give_up();
        let (front, writer) = (Arc::clone(&self.front), self.writer.take());
        let (session, id) = (self.session.clone(), self.id.clone());
        self.front.tasks.spawn(async move {
            if let Some(writer) = writer {
                writer.abort().await;
            }
            let (caller, abandon) =
                (Arc::new(Caller::gateway()), AbandonPut { session: session.clone(), id: id.clone() });
            match front.shell.run(&caller, abandon, &*front).await {
                Ok(told) if told.out => end(&front, session, id).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(reason = %error.reason(), "a file that was cut off stays for a sweep");
                }
            }
        });
    }
}

/// The contents of a file that nobody sees any more go, and then its row, behind the caller's back. Where that fails, a
/// sweep does it.
pub(crate) fn take_away(front: &Arc<Front>, session: SessionId, id: FileId) {
    let own = Arc::clone(front);
    front.tasks.spawn(async move { end(&own, session, id).await });
}

/// Takes the contents away, then the row. Whether both are gone.
pub(crate) async fn end(front: &Front, session: SessionId, id: FileId) {
    let removed = async {
        front.vault.remove(&id).await?;
        front.shell.run(&Arc::new(Caller::gateway()), Forget { session, id: id.clone() }, front).await
    };
    if let Err(error) = removed.await {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(file = %id, reason = %error.reason(), source, "a file could not be taken away; it is tried again");
    }
}

/// Reads a file: refused here, with a status, or not at all.
///
/// # Errors
/// What the verb refuses; `CONFLICT` where it was replaced meanwhile; `STORAGE_ERROR`; `LIMIT_REACHED`; `DRAINING`.
pub(crate) async fn get(
    front: &Arc<Front>,
    call: &Arc<Call>,
    admitted: &Admitted,
    open: OpenFile,
) -> Result<Told<Answers<GetFileResponse>>, Error> {
    if front.draining.is_cancelled() {
        return Err(draining());
    }
    let caller = of_whom(admitted, &open.of);
    let place = front.streams.place(&payer_of(&caller, &open.of))?;
    let standing = Arc::new(admitted.standing(&front.verifier));
    let mut found = front.ask(call, &caller, open.clone()).await?;
    if standing.enter(found.out.project.as_ref().map(ProjectId::as_str)) {
        // Registered first, then decided: an end of the membership in between was heard by nobody.
        found = front.ask(call, &caller, open.clone()).await?;
    }
    let (file, unscoped) = (found.out, found.unscoped);
    let Some(contents) = front.vault.read(&file.id, file.size).await? else {
        let again = front.ask(call, &caller, open).await?.out;
        // Replaced or deleted since it was found; or it is lost, which nobody but its owner can mend.
        return Err(if again.id == file.id { damaged(&file.id) } else { replaced() });
    };
    let opened = front.streams.open(place, admitted.principal(), SCOPE, &standing);
    let (outlet, answers) = outlet::open(ROOM, Arc::clone(&standing), WhenLapsed::Hold, &call.request_id);
    let sender = Sender {
        front: Arc::clone(front),
        call: Arc::clone(call),
        caller,
        open,
        standing,
        outlet,
        _opened: opened,
    };
    front.tasks.spawn(async move {
        // The outlet has said why; there is nobody else to tell.
        let _ = sender.run(file, contents).await;
    });
    Ok(Told { out: answers, unscoped })
}

fn replaced() -> Error {
    Error::new(Reason::Conflict, "the file was replaced meanwhile; read it again")
}

/// The task behind one file on its way out.
struct Sender {
    front: Arc<Front>,
    call: Arc<Call>,
    caller: Arc<Caller>,
    open: OpenFile,
    standing: Arc<Standing>,
    outlet: Outlet<GetFileResponse>,
    _opened: Opened,
}

impl Sender {
    async fn run(mut self, file: File, mut contents: crate::vault::Contents) -> Result<(), Gone> {
        let first = GetFileResponse { file: Some(wire::file(&file)), ..GetFileResponse::default() };
        self.outlet.send(first).await?;
        let (mut hash, mut sent, mut piece) = (Sha256::new(), 0, Vec::with_capacity(PIECE_BYTES));
        while let Some(part) = self.part(&mut contents).await? {
            hash.update(&part);
            for bytes in part.chunks(PIECE_BYTES) {
                piece.extend_from_slice(bytes);
                if piece.len() < PIECE_BYTES {
                    continue;
                }
                let rest = piece.split_off(PIECE_BYTES);
                self.send(std::mem::replace(&mut piece, rest)).await?;
                sent += 1;
                if sent % LOOK_EVERY == 0 {
                    self.look().await?;
                }
            }
        }
        // The last bytes leave only where all of them were what was stored.
        if <[u8; 32]>::from(hash.finalize()) != file.hash {
            return self.close(damaged(&file.id));
        }
        if piece.is_empty() { Ok(()) } else { self.send(piece).await }
    }

    /// The next part of the contents; none at their end.
    async fn part(&self, contents: &mut crate::vault::Contents) -> Result<Option<bytes::Bytes>, Gone> {
        tokio::select! {
            biased;
            () = self.outlet.gone() => Err(Gone),
            () = self.front.ending.cancelled() => self.close(draining()).map(|()| None),
            part = contents.next() => match part.transpose() {
                Ok(part) => Ok(part),
                Err(error) => self.close(error).map(|()| None),
            },
        }
    }

    async fn send(&self, data: Vec<u8>) -> Result<(), Gone> {
        self.outlet.send(GetFileResponse { file: None, data: data.into() }).await
    }

    /// Whether the caller may have the rest: a client that was evicted, or whose session is gone, may not.
    async fn look(&mut self) -> Result<(), Gone> {
        let looked = async {
            let caller = self.front.gate.recheck(&self.call, &self.caller)?;
            self.caller = admit::following(&caller, &self.standing)?;
            self.front.ask(&self.call, &self.caller, self.open.clone()).await
        };
        match looked.await {
            Ok(_) => Ok(()),
            // Deleted meanwhile: who has begun to read it gets what was there. Or it cannot be decided now.
            Err(error) if matches!(error.reason(), Reason::NotFound | Reason::AuthUnavailable) => Ok(()),
            Err(error) => self.close(error),
        }
    }

    fn close(&self, error: Error) -> Result<(), Gone> {
        // Logged where it is a fault of ours.
        drop(refuse(&error, &self.call.request_id));
        self.outlet.close(error);
        Err(Gone)
    }
}

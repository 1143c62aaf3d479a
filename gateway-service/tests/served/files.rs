//! Files over real sockets: whole or not there, bounded, and gone with their session.

use std::{path::PathBuf, time::SystemTime};

use futures_util::stream;
use interlock_client::{Credentials, Files, FilesOf, Gateway, PutFile, Reason};
use interlock_proto::gateway::v1::{
    CloseSessionRequest, DeleteFileRequest, GetFileRequest, ListFilesRequest, PutFileRequest,
    file_service_client::FileServiceClient,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{Calls, PATIENCE, PROJECT, Served, eventually, next, reason};

/// Contents that say where they are.
fn contents(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 % 251) as u8).collect()
}

async fn sdk(served: &Served) -> (Gateway, Calls, String) {
    let (known, calls) = served.owner("alice").await;
    calls.set_agent().await;
    let (session, _) = calls.bound_session().await;
    let gateway = Gateway::new(served.connection(), Credentials::bearer(known.credential.clone()));
    (gateway.with_project(PROJECT), calls, session)
}

async fn read(files: &Files, session: &str, name: &str) -> Vec<u8> {
    let mut download = files.get(FilesOf::Session(session), name).await.expect("found");
    let mut all = Vec::new();
    while let Some(part) = download.next().await.expect("a part") {
        all.extend_from_slice(&part);
    }
    all
}

/// What lies in the folder of contents.
fn stored(served: &Served) -> Vec<PathBuf> {
    let folder = served.folder().join("data/files");
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").path()).collect()
}

fn first(session: &str, name: &str, data: &[u8]) -> PutFileRequest {
    let (session_id, name) = (session.to_owned(), name.to_owned());
    PutFileRequest { session_id, name, data: data.to_vec().into(), ..PutFileRequest::default() }
}

// SF-01
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_what_is_got_whatever_its_size() {
    let served = Served::start().await;
    let (gateway, _, session) = sdk(&served).await;
    let (files, of) = (gateway.files(), FilesOf::Session(&session));
    for size in [0, 1, 65_536, 5 << 20, 64 << 20] {
        let name = format!("of {size}");
        let contents = contents(size);
        let hash: [u8; 32] = Sha256::digest(&contents).into();
        let known = PutFile { size: Some(size as u64), sha256: Some(hash) };
        let (file, replaced) =
            files.put(of, &name, known, std::io::Cursor::new(contents.clone())).await.expect("stored");
        assert_eq!((file.size, file.sha256, replaced), (size as u64, hash, false));
        assert_eq!(file.project_id.as_deref(), Some(PROJECT));
        assert!(read(&files, &session, &name).await == contents, "{size}");
    }
    // One byte more than a file may have.
    let too_long = std::io::Cursor::new(contents((64 << 20) + 1));
    let refused = files.put(of, "too long", PutFile::default(), too_long).await.expect_err("a bound");
    assert_eq!(refused.reason(), Some(Reason::LimitReached), "{refused}");
    let known = PutFile { size: Some((64 << 20) + 1), sha256: None };
    let refused = files.put(of, "too long", known, &b""[..]).await.expect_err("said before");
    assert_eq!(refused.reason(), Some(Reason::LimitReached), "{refused}");
    // Size and hash are held to.
    for known in [
        PutFile { size: Some(4), sha256: None },
        PutFile { size: Some(2), sha256: None },
        PutFile { size: None, sha256: Some([1; 32]) },
    ] {
        let refused = files.put(of, "other", known, &b"abc"[..]).await.expect_err("not what was said");
        assert_eq!(refused.reason(), Some(Reason::InvalidField), "{refused}");
    }
    let names: Vec<String> =
        files.list(of).await.expect("listed").into_iter().map(|file| file.name).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(
        files.delete(of, "of 1").await.expect("deleted") && !files.delete(of, "of 1").await.expect("gone")
    );
    eventually("nothing of what was refused or deleted lies there", || stored(&served).len() == 4).await;
}

// SF-03
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_data_and_never_a_path() {
    let served = Served::start().await;
    let (gateway, calls, session) = sdk(&served).await;
    let (files, of) = (gateway.files(), FilesOf::Session(&session));
    let hostile = [
        "..",
        "../x",
        "../../gateway.db",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "a\0b",
        "a\nb",
        "\\\\x",
        "..\\x",
        " a",
        "a ",
        "\u{202e}a",
        "",
    ];
    for name in hostile {
        let refused = files.put(of, name, PutFile::default(), &b"x"[..]).await.expect_err(name);
        let expected = if name.is_empty() { Reason::MissingField } else { Reason::InvalidField };
        assert_eq!(refused.reason(), Some(expected), "{name:?}: {refused}");
        assert_eq!(files.get(of, name).await.expect_err(name).reason(), Some(expected), "{name:?}");
        assert_eq!(files.delete(of, name).await.expect_err(name).reason(), Some(expected), "{name:?}");
    }
    assert_eq!(stored(&served), [] as [PathBuf; 0]);
    // What is a name stays one, and a link that somebody made under it leads nowhere.
    let outside = served.folder().join("outside");
    std::fs::write(&outside, "not this").expect("written");
    std::os::unix::fs::symlink(&outside, served.folder().join("data/files/linked")).expect("a link");
    for name in ["linked", "gateway.db", "a/b", "fil_1", "fil_1#1", "..."] {
        files.put(of, name, PutFile::default(), name.as_bytes()).await.expect(name);
        assert_eq!(read(&files, &session, name).await, name.as_bytes());
    }
    assert_eq!(std::fs::read(&outside).expect("there"), b"not this");
    let plain = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_str().expect("ours").to_owned();
        name == "linked" || (name.starts_with("fil_") && name.len() > 10)
    };
    assert!(stored(&served).iter().all(plain), "{:?}", stored(&served));
    drop(calls);
}

// SF-04
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let served = Served::start().await;
    let (gateway, calls, session) = sdk(&served).await;
    let (files, of) = (gateway.files(), FilesOf::Session(&session));
    files.put(of, "kept", PutFile::default(), &b"as it was"[..]).await.expect("stored");
    let before = files.list(of).await.expect("listed");
    // More than one part, so that some of it is on disk by then; then the client is gone.
    for parts in [0, 1, 100] {
        let (say, said) = mpsc::channel(1);
        let mut client = FileServiceClient::new(calls.line());
        let call = tokio::spawn(async move { client.put_file(ReceiverStream::new(said)).await });
        say.send(first(&session, "kept", b"something else")).await.expect("taken");
        for _ in 0..parts {
            let data = vec![7; 128 * 1024].into();
            say.send(PutFileRequest { data, ..PutFileRequest::default() }).await.expect("taken");
        }
        call.abort();
        assert!(call.await.expect_err("cut off").is_cancelled());
        eventually("what was cut off is taken away", || stored(&served).len() == 1).await;
        assert_eq!(files.list(of).await.expect("listed"), before, "after {parts} parts");
    }
    assert_eq!(read(&files, &session, "kept").await, b"as it was");
    // Fields of the first message come in no other.
    let mut client = FileServiceClient::new(calls.line());
    let odd = PutFileRequest { name: "b".to_owned(), ..PutFileRequest::default() };
    let refused =
        client.put_file(stream::iter([first(&session, "a", b"a"), odd])).await.expect_err("refused");
    assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    eventually("nothing of it lies there", || stored(&served).len() == 1).await;
}

// DESIGN 9, 6
#[tokio::test(flavor = "multi_thread")]
async fn files_end_with_their_session_and_streams_with_their_credential() {
    let served = Served::start().await;
    let (known, calls) = served.owner("alice").await;
    calls.set_agent().await;
    let (session, _) = calls.bound_session().await;
    let gateway = Gateway::new(served.connection(), Credentials::bearer(known.credential.clone()));
    let gateway = gateway.with_project(PROJECT);
    let (files, of) = (gateway.files(), FilesOf::Session(&session));
    for name in ["a", "b", "c"] {
        files
            .put(of, name, PutFile::default(), std::io::Cursor::new(contents(3 << 20)))
            .await
            .expect("stored");
    }
    assert_eq!(stored(&served).len(), 3);
    let close = CloseSessionRequest { session_id: session.clone(), force: false };
    assert!(calls.sessions().close_session(close).await.expect("closed").into_inner().gone);
    let refused = files.get(of, "a").await.expect_err("gone");
    assert_eq!(refused.reason(), Some(Reason::OwnerMismatch));
    eventually("the contents go", || stored(&served).is_empty()).await;

    let created = gateway.sessions().create("again").await.expect("created");
    let session = created.session.session_id;
    let of = FilesOf::Session(&session);
    files
        .put(of, "long", PutFile::default(), std::io::Cursor::new(contents(32 << 20)))
        .await
        .expect("stored");
    let mut client = FileServiceClient::new(calls.line());
    let request =
        GetFileRequest { session_id: session.clone(), name: "long".to_owned(), ..Default::default() };
    let mut down = client.get_file(request).await.expect("opened").into_inner();
    assert_eq!(
        next(&mut down).await.expect("living").expect("first").file.expect("what it is").size,
        32 << 20
    );
    let (say, said) = mpsc::channel(1);
    let mut client = FileServiceClient::new(calls.line());
    let up = tokio::spawn(async move { client.put_file(ReceiverStream::new(said)).await });
    say.send(first(&session, "never", b"whole")).await.expect("taken");
    for _ in 0..100 {
        let data = vec![7; 128 * 1024].into();
        say.send(PutFileRequest { data, ..PutFileRequest::default() }).await.expect("taken");
    }
    eventually("some of it lies there", || stored(&served).len() == 2).await;
    served.trust.revoke(&known).await;
    let ended = loop {
        match next(&mut down).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("all of it came after the revocation"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&ended), "REVOKED");
    let refused =
        tokio::time::timeout(PATIENCE, up).await.expect("in time").expect("no panic").expect_err("refused");
    assert_eq!(reason(&refused), "REVOKED");
    eventually("nothing of it lies there", || stored(&served).len() == 1).await;
}

// Crashes: contents without a row, and half of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_gateway_left_is_taken_away() {
    let mut served = Served::start().await;
    let (gateway, _, session) = sdk(&served).await;
    let of = FilesOf::Session(&session);
    gateway.files().put(of, "kept", PutFile::default(), &b"whole"[..]).await.expect("stored");
    let kept = stored(&served);
    let long_ago = SystemTime::now() - std::time::Duration::from_secs(24 * 3600);
    let folder = served.folder().join("data/files");
    let put = |name: &str, at: SystemTime| {
        let file = std::fs::File::create(folder.join(name)).expect("made");
        file.set_modified(at).expect("aged");
    };
    for name in ["fil_0a", "fil_0b#1", "fil_0c#22"] {
        put(name, long_ago);
    }
    std::fs::File::options()
        .write(true)
        .open(&kept[0])
        .and_then(|file| file.set_modified(long_ago))
        .expect("aged");
    put("fil_0d", SystemTime::now());
    served.restart().await;
    eventually("what no row tells of goes", || stored(&served).len() == 2).await;
    assert!(folder.join("fil_0d").exists(), "it may be coming");
    let (known, _) = served.owner("alice").await;
    let gateway =
        Gateway::new(served.connection(), Credentials::bearer(known.credential)).with_project(PROJECT);
    assert_eq!(read(&gateway.files(), &session, "kept").await, b"whole");
    // Contents that are lost, or other ones, are told and never given out.
    for damage in [&b"who?!"[..], b"longer than it was"] {
        std::fs::write(&kept[0], damage).expect("written");
        let mut seen = Vec::new();
        let error = match gateway.files().get(of, "kept").await {
            Err(error) => error,
            Ok(mut download) => loop {
                match download.next().await {
                    Ok(Some(part)) => seen.extend_from_slice(&part),
                    Ok(None) => panic!("damage was given out"),
                    Err(error) => break error,
                }
            },
        };
        assert_eq!((error.reason(), seen.len()), (Some(Reason::StorageError), 0), "{error}");
    }
    std::fs::remove_file(&kept[0]).expect("lost");
    assert_eq!(gateway.files().get(of, "kept").await.expect_err("lost").reason(), Some(Reason::StorageError));
    assert_eq!(gateway.files().list(of).await.expect("listed").len(), 1, "nothing sweeps it");
}

// SF-02, SF-05
#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_and_limits_hold() {
    let settings = [("files.size", "1KiB"), ("files.session_size", "2KiB"), ("files.per_session", "3")];
    let served = Served::start_with(&settings).await;
    let (gateway, calls, session) = sdk(&served).await;
    let (files, of) = (gateway.files(), FilesOf::Session(&session));
    for name in ["a", "b"] {
        files.put(of, name, PutFile::default(), std::io::Cursor::new(contents(1024))).await.expect("stored");
    }
    for (name, size) in [("c", 1), ("a", 1025)] {
        let contents = std::io::Cursor::new(contents(size));
        let refused = files.put(of, name, PutFile::default(), contents).await.expect_err("a bound");
        assert_eq!(refused.reason(), Some(Reason::LimitReached), "{name}: {refused}");
    }
    files.put(of, "c", PutFile::default(), &b""[..]).await.expect("none is no more");
    let refused = files.put(of, "d", PutFile::default(), &b""[..]).await.expect_err("a fourth");
    assert_eq!(refused.reason(), Some(Reason::LimitReached));
    files.put(of, "a", PutFile::default(), &b"less"[..]).await.expect("in its own place");
    assert_eq!(read(&files, &session, "a").await, b"less");

    let (_, bob) = served.owner("bob").await;
    for (stranger, expected) in [(bob, "OWNER_MISMATCH"), (served.nobody().await, "PROVIDER_AUTH_FAILED")] {
        let mut client = FileServiceClient::new(stranger.line());
        let (session_id, name) = (session.clone(), "a".to_owned());
        let request =
            GetFileRequest { session_id: session_id.clone(), name: name.clone(), ..Default::default() };
        assert_eq!(reason(&client.get_file(request).await.expect_err("refused")), expected);
        let request = ListFilesRequest { session_id: session_id.clone(), ..Default::default() };
        assert_eq!(reason(&client.list_files(request).await.expect_err("refused")), expected);
        let request = DeleteFileRequest { session_id, name, ..Default::default() };
        assert_eq!(reason(&client.delete_file(request).await.expect_err("refused")), expected);
        let put = client.put_file(stream::iter([first(&session, "a", b"theirs")])).await;
        assert_eq!(reason(&put.expect_err("refused")), expected);
    }
    assert_eq!(read(&files, &session, "a").await, b"less");
    drop(calls);
}

//! etcd (Debian: `etcd-server`) with authentication and mutual TLS: a read of one small key with a token that it
//! has given, beside `Validate`.

use std::path::PathBuf;

use interlock_tests::{
    Pair,
    wire::{self, Metadata, Shows},
};
use prost::Message;
use tonic::{Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use super::Peer;
use crate::{duel::Duel, load::Caller, owners::Owner, plan::Plan, programs, validate};

const PROGRAM: &str = "etcd";
const ROOT: &str = "root";
const KEY: &[u8] = b"credential";
/// As much as a verdict.
const VALUE: [u8; 160] = [b'x'; 160];

/// `etcdserverpb`, as far as it is used here (etcd 3.4, api/etcdserverpb/rpc.proto).
#[derive(Clone, PartialEq, Message)]
struct UserAdd {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
struct UserGrantRole {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    role: String,
}

#[derive(Clone, PartialEq, Message)]
struct Authenticate {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
struct Authenticated {
    #[prost(string, tag = "2")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Range {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Ranged {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

async fn call<Q, A>(
    channel: &Channel,
    path: &'static str,
    metadata: &Metadata,
    message: Q,
) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let answer = grpc.unary(metadata.on(message), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

/// Reads the key, again and again.
struct Reader {
    channel: Channel,
    metadata: Metadata,
}

impl Caller for Reader {
    async fn call(&mut self) -> Result<(), Status> {
        let range = Range { key: KEY.to_vec() };
        let found: Ranged = call(&self.channel, "/etcdserverpb.KV/Range", &self.metadata, range).await?;
        if found.count == 1 { Ok(()) } else { Err(Status::not_found("the key")) }
    }
}

/// Auth's internal listener beside it. None where it is not installed.
pub(super) async fn duel(plan: &Plan, pair: &Pair, owners: &[Owner]) -> Option<Duel> {
    let (certificate, key) = pair.world.leaf("pki/auth");
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let (ca, certificate, key) = (text(&pair.world.ca()), text(&certificate), text(&key));
    let mut peer = Peer::start(PROGRAM, |port, folder| {
        let at = format!("https://127.0.0.1:{port}");
        [
            ["--data-dir", &folder.join("data").to_string_lossy()],
            ["--listen-client-urls", &at],
            ["--advertise-client-urls", &at],
            // The one for other members listens where nobody comes.
            ["--listen-peer-urls", "http://127.0.0.1:0"],
            ["--cert-file", &certificate],
            ["--key-file", &key],
            ["--trusted-ca-file", &ca],
            ["--auth-token", "simple"],
        ]
        .concat()
        .iter()
        // A flag of Go without a value takes none from the next argument.
        .chain(&["--client-cert-auth"])
        .map(|argument| (*argument).to_owned())
        .collect()
    })?;
    peer.is_ready(PROGRAM).await.then_some(())?;
    let shows = Shows { ca: pair.world.ca(), leaf: Some(pair.world.leaf("pki/tester")) };
    let connect = || wire::connect(peer.address, &shows);
    let metadata = prepare(&connect()).await.expect("etcd with authentication");
    let channels: Vec<Channel> = (0..plan.connections).map(|_| connect()).collect();
    let callers = (0..plan.callers).map(|number| Reader {
        channel: channels[number % channels.len()].clone(),
        metadata: metadata.clone(),
    });
    let mut etcd = peer.side(callers.collect());
    let mut ours = validate::ours(plan, pair, owners);
    let gateway = programs::pid(&pair.world, "gateway");
    let mut duel =
        Duel::fight("validate beside etcd", plan, &mut ours, &mut etcd, &[gateway]).await.beside("etcd");
    duel.note = "; etcd reads one key, mutual TLS, with a simple token".to_owned();
    Some(duel)
}

/// Turns authentication on; gives what calls show.
async fn prepare(channel: &Channel) -> Result<Metadata, Status> {
    let none = Metadata::none();
    let password = interlock_kit::random::id("pass");
    let put = Put { key: KEY.to_vec(), value: VALUE.to_vec() };
    let _: Empty = call(channel, "/etcdserverpb.KV/Put", &none, put).await?;
    let add = UserAdd { name: ROOT.to_owned(), password: password.clone() };
    let _: Empty = call(channel, "/etcdserverpb.Auth/UserAdd", &none, add).await?;
    let grant = UserGrantRole { user: ROOT.to_owned(), role: ROOT.to_owned() };
    let _: Empty = call(channel, "/etcdserverpb.Auth/UserGrantRole", &none, grant).await?;
    let _: Empty = call(channel, "/etcdserverpb.Auth/AuthEnable", &none, Empty {}).await?;
    let ask = Authenticate { name: ROOT.to_owned(), password };
    let given: Authenticated = call(channel, "/etcdserverpb.Auth/Authenticate", &none, ask).await?;
    Ok(none.with("token", &given.token))
}

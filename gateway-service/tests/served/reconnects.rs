//! A client whose stream breaks again and again: nothing is lost on the way, and nothing comes twice.

use interlock_proto::gateway::v1::{
    AckRequest, PostMessageRequest, StreamEventsRequest, stream_events_response::Message,
};

use crate::support::{Calls, PROJECT, Served, cookie_of, next};

/// Streams that are cut off in the middle; with `INTERLOCK_LONG`, a thousand.
const RECONNECTS: u64 = 100;
const RECONNECTS_LONG: u64 = 1_000;
/// Every so many of them on a connection of its own.
const A_CONNECTION: u64 = 20;
/// Those who write meanwhile, so that a stream is cut while it catches up and while it is live.
const WRITERS: u64 = 4;

async fn write(client: Calls, session: String, writer: u64, reconnects: u64) {
    // As many as are read, at most: two a stream.
    for number in 0..2 * reconnects / WRITERS {
        let post = PostMessageRequest {
            session_id: session.clone(),
            request_id: format!("{writer} {number}"),
            data: "something".into(),
            ..PostMessageRequest::default()
        };
        client.sessions().post_message(post).await.expect("said");
    }
}

// Issue 7 line 4, NC-27, I15
#[tokio::test(flavor = "multi_thread")]
async fn forced_reconnects_lose_and_double_nothing() {
    let long = std::env::var_os("INTERLOCK_LONG").is_some();
    let reconnects = if long { RECONNECTS_LONG } else { RECONNECTS };
    let served = Served::start().await;
    let (_, alice) = served.owner("alice").await;
    let created = alice.create("first").await;
    let cookie = cookie_of(&created);
    let session = created.into_inner().session.expect("made").session_id;
    let connect = async || served.nobody().await.with("cookie", &cookie).with("x-interlock-project", PROJECT);
    let mut client = connect().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(client.clone(), session.clone(), writer, reconnects)))
        .collect();
    let (mut last, mut read) = (0, 0_u64);
    for round in 0..reconnects {
        if round % A_CONNECTION == 0 {
            client = connect().await;
        }
        // By what it has read itself, and by what the gateway knows of that.
        let from_cursor = round % 2 == 1;
        if from_cursor {
            let ack = AckRequest { session_id: session.clone(), sequence: last };
            assert_eq!(client.sessions().ack(ack).await.expect("its own").into_inner().sequence, last);
        }
        let after = if from_cursor { 0 } else { last };
        let from = StreamEventsRequest { session_id: session.clone(), after, from_cursor };
        let mut stream = client.sessions().stream_events(from).await.expect("opened").into_inner();
        let mut wanted = 1 + round % 2;
        while wanted > 0 {
            match next(&mut stream).await.expect("living").expect("a message").message.expect("one") {
                Message::Event(event) => {
                    assert_eq!(event.sequence, last + 1, "in round {round}");
                    last = event.sequence;
                    (wanted, read) = (wanted - 1, read + 1);
                }
                Message::Opened(_) | Message::CaughtUp(_) => {}
                Message::Gap(gap) => panic!("in round {round}: {gap:?}"),
            }
        }
        // Cut off, whatever is on its way.
        drop(stream);
    }
    assert!(read >= reconnects && read == last, "{read} of {last}");
    println!("{reconnects} reconnects, {read} events, each once");
    for writer in writers {
        writer.await.expect("no writer was refused");
    }
}

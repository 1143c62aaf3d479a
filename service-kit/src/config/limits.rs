//! Section `limits`: the bounds on what one peer, and all together, may use.
//!
//! What each bound keeps away stands at [`ServerLimits`]; a service passes the defaults of its own.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    reader::Reader,
    setting::{ByteSize, Setting},
};
use crate::serve::ServerLimits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Reads the section over these defaults. Relations that do not hold are mistakes at key `limits`.
pub(super) fn read(r: &mut Reader, mut limits: ServerLimits) -> ServerLimits {
    let l = &mut limits;
    bounded(r, "limits.streams_per_connection", &mut l.streams_per_connection, 1..=10_000);
    bounded(r, "limits.local_error_resets", &mut l.local_error_resets, 1..=65_536);
    bounded(r, "limits.pending_accept_resets", &mut l.pending_accept_resets, 1..=4_096);
    bounded(r, "limits.calls_per_connection", &mut l.calls_per_connection, 1..=10_000);
    bounded(r, "limits.calls", &mut l.calls, 1..=100_000);
    bounded(r, "limits.parked_calls", &mut l.parked_calls, 1..=1_000_000);
    bounded(r, "limits.unknown_credentials", &mut l.unknown_credentials, 1..=1_000_000);
    bounded(r, "limits.connections", &mut l.connections, 1..=1_000_000);
    bounded(r, "limits.connections_per_source", &mut l.connections_per_source, 1..=1_000_000);
    bounded(r, "limits.handshakes", &mut l.handshakes, 1..=65_536);
    bounded(r, "limits.handshakes_per_source", &mut l.handshakes_per_source, 1..=65_536);
    bytes_u32(r, "limits.stream_window", &mut l.stream_window_bytes, 16 * KIB..=16 * MIB);
    bytes_u32(r, "limits.connection_window", &mut l.connection_window_bytes, 64 * KIB..=1_024 * MIB);
    bytes_u32(r, "limits.header_list", &mut l.header_list_bytes, 4 * KIB..=MIB);
    l.message_bytes = {
        let default = u64::try_from(l.message_bytes).unwrap_or(u64::MAX);
        usize::try_from(bytes(r, "limits.message", default, 4 * KIB..=64 * MIB)).expect("within its bounds")
    };
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    bounded(r, "limits.timeout", &mut l.timeout, ms(50)..=s(600));
    // Linux takes no more than 32,767 s for TCP's own (tcp(7)); a socket that refused it could not be served.
    bounded(r, "limits.keepalive_interval", &mut l.keepalive_interval, s(1)..=s(9 * 3_600));
    bounded(r, "limits.keepalive_timeout", &mut l.keepalive_timeout, ms(100)..=s(60));
    bounded(r, "limits.connection_age", &mut l.connection_age, s(1)..=s(86_400));
    bounded(r, "limits.connection_age_grace", &mut l.connection_age_grace, ms(100)..=s(3_600));
    bounded(r, "limits.handshake_timeout", &mut l.handshake_timeout, ms(50)..=s(60));
    bounded(r, "limits.preface_timeout", &mut l.preface_timeout, ms(50)..=s(60));
    bounded(r, "limits.frame_timeout", &mut l.frame_timeout, ms(50)..=s(60));
    bounded(r, "limits.accept_pause", &mut l.accept_pause, ms(1)..=s(5));
    bounded(r, "limits.drain", &mut l.drain, ms(100)..=s(600));
    for fault in limits.faults() {
        r.mistake("limits", fault);
    }
    limits
}

fn bounded<T: Setting + PartialOrd + Copy>(
    r: &mut Reader,
    key: &str,
    slot: &mut T,
    bounds: RangeInclusive<T>,
) {
    *slot = r.bounded(key, *slot, bounds);
}

fn bytes_u32(r: &mut Reader, key: &str, slot: &mut u32, bounds: RangeInclusive<u64>) {
    *slot = u32::try_from(bytes(r, key, (*slot).into(), bounds)).expect("within its bounds");
}

fn bytes(r: &mut Reader, key: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
    let (least, most) = bounds.into_inner();
    r.bounded(key, ByteSize(default), ByteSize(least)..=ByteSize(most)).0
}

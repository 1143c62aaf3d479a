//! Every bound of a server, in one place, with the relations between them.
//!
//! The values were measured on tonic, h2 and rustls; what each one keeps away stands beside it.

use std::time::Duration;

/// Bounds of one server. Times are durations, sizes are bytes, the rest are counts.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Streams open at once on one connection: an idle one costs 8 KiB.
    pub streams_per_connection: u32,
    /// Resets that we may be made to send on one connection before it ends.
    pub local_error_resets: usize,
    /// Rapid resets (CVE-2023-44487) before a connection ends; honest cancels reach 20.
    pub pending_accept_resets: usize,
    /// Ordinary calls at once on one connection; the excess is refused at once.
    pub calls_per_connection: usize,
    /// Ordinary calls at once on each listener. Of these and of the parked ones, one source may hold half
    /// on the public listener.
    pub calls: usize,
    /// Parked calls and streams at once on each listener: apart from the ordinary ones.
    pub parked_calls: usize,
    /// How long an ordinary call may take; a caller can only ask for less.
    pub timeout: Duration,
    /// Methods with a limit of their own instead of `timeout`: path and limit.
    pub own_timeouts: Vec<(&'static str, Duration)>,
    /// Flow-control window of one stream. Small, and far under the connection's: h2 ends a whole
    /// connection when small frames lie unread.
    pub stream_window_bytes: u32,
    /// Flow-control window of one connection.
    pub connection_window_bytes: u32,
    /// Decoded header list of one request.
    pub header_list_bytes: u32,
    /// Look-ups of unknown credentials that one source may cause, a second.
    pub unknown_credentials: u32,
    /// The largest message that is decoded. Each generated service is told it when it is built.
    pub message_bytes: usize,
    /// How often a quiet connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// When a connection is asked to end, plus or minus a tenth.
    pub connection_age: Duration,
    /// How long after that it is cut.
    pub connection_age_grace: Duration,
    /// Connections open at once on each listener.
    pub connections: usize,
    /// ... from one source.
    pub connections_per_source: usize,
    /// Connections on each listener that have not yet shown an HTTP/2 preface.
    pub handshakes: usize,
    /// ... from one source.
    pub handshakes_per_source: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the first 33 bytes (preface and SETTINGS header) may take after it.
    pub preface_timeout: Duration,
    /// How long a peer may be silent inside the data of a frame, and how long a whole header block may take,
    /// any other frame, and the acknowledgement of our settings.
    pub frame_timeout: Duration,
    /// The pause after a failed accept (no file descriptors left, for one).
    pub accept_pause: Duration,
    /// How long open calls may go on after a shutdown began.
    pub drain: Duration,
}

impl ServerLimits {
    /// Those of auth.
    #[must_use]
    pub fn auth() -> Self {
        Self {
            streams_per_connection: 64,
            local_error_resets: 1024,
            pending_accept_resets: 20,
            calls_per_connection: 32,
            calls: 256,
            parked_calls: 1_024,
            timeout: Duration::from_secs(5),
            // Far more than honest clients need, far fewer than the store can.
            unknown_credentials: 2_000,
            message_bytes: 64 * 1024,
            ..Self::shared()
        }
    }

    /// Those of the gateway.
    #[must_use]
    pub fn gateway() -> Self {
        Self {
            streams_per_connection: 128,
            local_error_resets: 1024,
            pending_accept_resets: 64,
            calls_per_connection: 64,
            calls: 1_024,
            parked_calls: 16_384,
            timeout: Duration::from_secs(10),
            // Each is a call to auth.
            unknown_credentials: 100,
            message_bytes: 1024 * 1024,
            ..Self::shared()
        }
    }

    fn shared() -> Self {
        Self {
            streams_per_connection: 64,
            local_error_resets: 1024,
            pending_accept_resets: 20,
            calls_per_connection: 32,
            calls: 256,
            parked_calls: 1_024,
            timeout: Duration::from_secs(5),
            own_timeouts: Vec::new(),
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 8 * 1024 * 1024,
            header_list_bytes: 8 * 1024,
            unknown_credentials: 100,
            message_bytes: 64 * 1024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(5),
            connection_age: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(60),
            connections: 8_192,
            connections_per_source: 1_024,
            handshakes: 512,
            handshakes_per_source: 128,
            handshake_timeout: Duration::from_secs(3),
            preface_timeout: Duration::from_secs(2),
            frame_timeout: Duration::from_secs(4),
            accept_pause: Duration::from_millis(50),
            drain: Duration::from_secs(10),
        }
    }

    /// Streams that callers with no credential may hold at once on each listener, apart from the parked
    /// calls of known ones: an eighth of their number.
    pub(crate) fn watches(&self) -> usize {
        self.parked_calls.div_ceil(8)
    }

    /// The same, with no more connections than there are file descriptors for.
    #[must_use]
    pub(crate) fn within(self, connections: usize) -> Self {
        if self.connections <= connections {
            return self;
        }
        Self {
            connections,
            connections_per_source: self.connections_per_source.min(connections.div_ceil(2)),
            handshakes: self.handshakes.min(connections.div_ceil(2)),
            handshakes_per_source: self.handshakes_per_source.min(connections.div_ceil(4)),
            ..self
        }
    }

    /// The relations that must hold between bounds; each broken one, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<&'static str> {
        let streams = usize::try_from(self.streams_per_connection).unwrap_or(usize::MAX);
        let windows = u64::from(self.stream_window_bytes) * u64::from(self.streams_per_connection);
        let rules = [
            (self.calls_per_connection <= streams, "calls per connection exceed its streams"),
            (self.calls_per_connection <= self.calls, "one connection may hold all calls"),
            (self.connections_per_source <= self.connections, "one source may hold all connections"),
            (self.handshakes_per_source <= self.handshakes, "one source may hold all handshakes"),
            (self.handshakes <= self.connections, "more handshakes than connections"),
            (
                windows <= u64::from(self.connection_window_bytes),
                "unread streams can use up the window of their connection",
            ),
            (self.frame_timeout < self.keepalive_interval, "a silent peer outlives a ping"),
            (self.timeout < self.connection_age, "a call outlives its connection"),
            (self.local_error_resets > 0, "no limit on resets"),
            (self.calls > 0 && self.parked_calls > 0 && self.handshakes_per_source > 0, "a bound of nothing"),
        ];
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
    }

    /// How long a call may take when the caller does not ask for less.
    pub(crate) fn timeout_of(&self, path: &str) -> Duration {
        self.own_timeouts.iter().find(|(own, _)| *own == path).map_or(self.timeout, |(_, limit)| *limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_services_limits_fit_together() {
        assert_eq!(ServerLimits::auth().faults(), Vec::<&str>::new());
        assert_eq!(ServerLimits::gateway().faults(), Vec::<&str>::new());
    }

    #[test]
    fn a_broken_relation_is_named() {
        let limits = ServerLimits { calls_per_connection: 65, ..ServerLimits::auth() };
        assert_eq!(limits.faults(), ["calls per connection exceed its streams"]);
    }

    #[test]
    fn fewer_connections_keep_their_relations() {
        for connections in [2, 3, 40, 560, 8_191] {
            let limits = ServerLimits::gateway().within(connections);
            assert_eq!(limits.faults(), Vec::<&str>::new(), "{connections}");
            assert_eq!(limits.connections, connections);
            assert!(limits.connections_per_source < connections, "{connections}: one source holds all");
        }
        assert_eq!(ServerLimits::auth().within(20_000).connections, ServerLimits::auth().connections);
    }
}

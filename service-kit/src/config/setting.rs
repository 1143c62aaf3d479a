//! The text form of values: what is accepted, and how it is said.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::spiffe::{SpiffeId, TrustDomain};

/// A value that configuration can hold.
pub trait Setting: Sized {
    /// What is accepted, in words.
    const ACCEPTED: &'static str;

    /// Reads it; `None` where it is not of the accepted form.
    fn parse(text: &str) -> Option<Self>;

    /// As a person would write it.
    fn show(&self) -> String;
}

/// A number of bytes: `512`, `64KiB`, `1MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A whole number and one unit: `250ms`, `10s`, `15m`, `12h`, `14d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*millis)?))
}

impl Setting for Duration {
    const ACCEPTED: &'static str = "a duration like 250ms, 10s, 15m, 12h or 14d";

    fn parse(text: &str) -> Option<Self> {
        parse_duration(text)
    }

    fn show(&self) -> String {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let fits = TIME_UNITS.iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
        let (name, unit) = fits.unwrap_or(&TIME_UNITS[0]);
        format!("{}{name}", millis / unit)
    }
}

impl Setting for ByteSize {
    const ACCEPTED: &'static str = "a size like 512, 64KiB, 1MiB or 2GiB";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, bytes) = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?;
        Some(Self(number.parse::<u64>().ok()?.checked_mul(*bytes)?))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = BYTE_UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (name, unit) = fits.unwrap_or(&BYTE_UNITS[3]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

macro_rules! parsed {
    ($($type:ty => $accepted:literal,)*) => {
        $(impl Setting for $type {
            const ACCEPTED: &'static str = $accepted;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }
        })*
    };
}

parsed! {
    bool => "true or false",
    u16 => "a whole number",
    u32 => "a whole number",
    u64 => "a whole number",
    usize => "a whole number",
    SocketAddr => "an IP address and a port, like 127.0.0.1:7443 or [::1]:7443",
    SpiffeId => "a SPIFFE id, like spiffe://example.org/gateway",
    TrustDomain => "a trust domain, like example.org",
}

impl Setting for String {
    const ACCEPTED: &'static str = "text that is not empty";

    fn parse(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const ACCEPTED: &'static str = "a path";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("15m", 900_000), ("12h", 43_200_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1h30m", "10 s", "10S", "99999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(Duration::from_secs(90).show(), "90s");
        assert_eq!(Duration::from_secs(86_400).show(), "1d");
        assert_eq!(Duration::ZERO.show(), "0ms");
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(ByteSize::parse("64KiB"), Some(ByteSize(65_536)));
        assert_eq!(ByteSize::parse("512"), Some(ByteSize(512)));
        for text in ["", "64K", "64KB", "KiB", "-1", "99999999999999GiB"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
        assert_eq!(ByteSize(65_536).show(), "64KiB");
        assert_eq!(ByteSize(1_000).show(), "1000B");
    }
}

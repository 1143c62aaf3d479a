//! Calls on a project's resource that name no project: what becomes of them (DESIGN 10).

use interlock_proto::metadata;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::{
    clock::Timestamp,
    config::{Profile, Reader},
    error::{Error, Reason},
};

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unscoped {
    /// Served and marked, until the sunset if there is one.
    Warn {
        /// From then on they are refused.
        sunset: Option<Timestamp>,
    },
    /// Refused.
    Deny,
}

impl Unscoped {
    /// Reads the keys `unscoped` (`warn` by default in `local`, `deny` in `hardened`) and `sunset` (RFC 3339).
    pub fn read(r: &mut Reader, profile: Profile) -> Self {
        let warns = r.choice("unscoped", profile == Profile::Local, &[("warn", true), ("deny", false)]);
        let sunset: Option<String> = r.optional("sunset");
        let parsed = sunset.as_deref().map(str::parse::<jiff::Timestamp>);
        if matches!(parsed, Some(Err(_))) {
            r.mistake("sunset", "an instant of RFC 3339, like 2027-01-01T00:00:00Z");
        }
        let sunset = parsed.and_then(Result::ok).map(|at| Timestamp::from_micros(at.as_microsecond()));
        if warns { Self::Warn { sunset } } else { Self::Deny }
    }

    /// Whether such a call is served at `now`.
    ///
    /// # Errors
    /// `PROJECT_REQUIRED`; `UNSCOPED_SUNSET` from the sunset on.
    pub fn judge(self, now: Timestamp) -> Result<(), Error> {
        match self {
            Self::Deny => {
                Err(Error::new(Reason::ProjectRequired, "the call must name its project: `interlock use`"))
            }
            Self::Warn { sunset } if sunset.is_some_and(|sunset| sunset.is_over(now)) => {
                Err(Error::new(Reason::UnscopedSunset, "calls that name no project have ended"))
            }
            Self::Warn { .. } => Ok(()),
        }
    }

    /// From when on they are refused, as answers say it: the date of RFC 8594, in the form of RFC 9110 section 5.6.7.
    #[must_use]
    pub fn sunset(self) -> Option<MetadataValue<Ascii>> {
        let Self::Warn { sunset: Some(at) } = self else { return None };
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()?;
        MetadataValue::try_from(date).ok()
    }

    /// Marks an answer (RFC 9745, RFC 8594).
    pub fn mark(self, answer: &mut MetadataMap) {
        answer.insert(metadata::DEPRECATION, MetadataValue::from_static("true"));
        if let Some(sunset) = self.sunset() {
            answer.insert(metadata::SUNSET, sunset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SQ-30
    #[test]
    fn a_sunset_is_an_http_date() {
        let at = Timestamp::from_micros(1_798_761_600_000_000);
        let value = Unscoped::Warn { sunset: Some(at) }.sunset().expect("a date");
        assert_eq!(value.to_str().expect("ascii"), "Fri, 01 Jan 2027 00:00:00 GMT");
        assert!(Unscoped::Deny.sunset().is_none());
        let mut answer = MetadataMap::new();
        Unscoped::Warn { sunset: None }.mark(&mut answer);
        assert!(answer.get("deprecation").is_some_and(|v| v == "true") && answer.get("sunset").is_none());
    }

    #[test]
    fn the_sunset_is_over_at_its_instant() {
        let at = Timestamp::from_micros(5);
        let warn = Unscoped::Warn { sunset: Some(at) };
        assert!(warn.judge(Timestamp::from_micros(4)).is_ok());
        assert_eq!(warn.judge(at).expect_err("over").reason(), Reason::UnscopedSunset);
        assert_eq!(Unscoped::Deny.judge(at).expect_err("denied").reason(), Reason::ProjectRequired);
    }
}

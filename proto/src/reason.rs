//! Reasons of refusals, as they stand in `google.rpc.ErrorInfo`.

use crate::errors::v1::Reason;

impl Reason {
    /// The text in `ErrorInfo.reason`: the enum value's name without its prefix.
    #[must_use]
    pub fn text(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }

    /// The reason of that text; `None` for a text that this version does not know.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_str_name(&format!("REASON_{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        let known = (0..200).filter_map(|n| Reason::try_from(n).ok());
        for reason in known {
            assert_eq!(Reason::from_text(reason.text()), Some(reason));
        }
        assert_eq!(Reason::from_text("NO_SUCH_REASON"), None);
    }
}

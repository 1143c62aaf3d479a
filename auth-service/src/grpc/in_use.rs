//! The evidence of `TOKEN_IN_USE` on the wire: `interlock.errors.v1.TokenInUse`, and the same for people.

use interlock_kit::error::{Detail, Precondition};
use interlock_proto::errors::v1 as wire;
use prost::Message as _;

use super::wire::duration;
use crate::role_token::{InUse, User};

const TYPE_URL: &str = "type.googleapis.com/interlock.errors.v1.TokenInUse";

impl Detail for InUse {
    fn preconditions(&self) -> Vec<Precondition> {
        let role = self.role.text();
        let used = self.users.iter().map(|user| Precondition {
            kind: "IN_USE".to_owned(),
            subject: format!("{role}/{}", user.generation),
            description: match user.source.as_str() {
                "" => format!("by {}, {} s ago", user.service, user.ago.as_secs()),
                source => format!("by {} from {source}, {} s ago", user.service, user.ago.as_secs()),
            },
        });
        let silent = self.silent.iter().map(|who| Precondition {
            kind: "NOT_TOLD".to_owned(),
            subject: role.to_owned(),
            description: format!("{who} has not told whether it is used there"),
        });
        used.chain(silent).collect()
    }

    fn encoded(&self) -> (String, Vec<u8>) {
        let message = wire::TokenInUse {
            role: self.role.text().to_owned(),
            window: Some(duration(self.window)),
            users: self.users.iter().map(user).collect(),
            silent: self.silent.clone(),
        };
        (TYPE_URL.to_owned(), message.encode_to_vec())
    }
}

fn user(user: &User) -> wire::TokenUser {
    wire::TokenUser {
        generation: user.generation,
        service: user.service.clone(),
        source: user.source.clone(),
        ago: Some(duration(user.ago)),
    }
}

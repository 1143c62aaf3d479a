//! Permits and project scopes are made in the policy only.

use interlock_gateway::{
    ids::ProjectId,
    policy::{Permit, ProjectScope},
};

fn permit() -> Permit {
    Permit(())
}

fn scope(project: ProjectId) -> ProjectScope {
    ProjectScope(project)
}

fn main() {}

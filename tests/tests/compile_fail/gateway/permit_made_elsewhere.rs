//! Permits and project scopes are made in the policy only.

use interlock_gateway::{
    ids::ProjectId,
    policy::{Permit, ProjectScope},
};

fn permit() -> Permit {
    Permit(()) //~ E0423
}

fn scope(project: ProjectId) -> ProjectScope {
    ProjectScope(project) //~ E0423
}

fn main() {}

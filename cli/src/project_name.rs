//! Projects are named by people and known by id.

use interlock_client::Auth;

use crate::failure::Failure;

/// The id of the project that `name` is the name or the id of.
///
/// # Errors
/// Where the caller can enter no such project.
pub(crate) async fn resolve(auth: &Auth, name: &str) -> Result<String, Failure> {
    if name.starts_with("prj_") || name == "system" {
        return Ok(name.to_owned());
    }
    let projects = auth.list_projects().await?;
    let found = projects.into_iter().find(|project| project.name == name);
    found.map(|project| project.project_id).ok_or_else(|| {
        Failure::local(format!("no project `{name}` that you can enter")).next("interlock project list")
    })
}

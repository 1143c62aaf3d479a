//! `project create|list|member`.

use interlock_client::Project as Found;
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::signed_in,
    failure::Failure,
    output::{instant, table},
    project_name,
};

/// What to do with projects.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Project {
    /// Make a project; you become its first member.
    Create {
        /// 1 to 64 of a-z, 0-9, `-`, `_` and `.`.
        name: String,
    },
    /// List the projects that you can enter.
    List,
    /// Add an owner to a project.
    Member {
        /// The project, by name or id.
        project: String,
        /// The owner's id.
        owner: String,
    },
}

/// Does it.
///
/// # Errors
/// What auth-service refuses.
pub(crate) async fn run(project: Project, common: &Common) -> Result<(), Failure> {
    let auth = signed_in(common)?.auth();
    match project {
        Project::Create { name } => {
            let made = auth.create_project(&name).await?;
            common.output.print(&format!("{} ({})", made.name, made.project_id), &shown(&made))?;
        }
        Project::List => {
            let projects = auth.list_projects().await?;
            let rows: Vec<_> = projects.iter().map(|p| vec![p.project_id.clone(), p.name.clone()]).collect();
            let json = Value::Array(projects.iter().map(shown).collect());
            common.output.print(&table(&["ID", "NAME"], &rows), &json)?;
        }
        Project::Member { project, owner } => {
            let id = project_name::resolve(&auth, &project).await?;
            auth.add_member(&id, &owner).await?;
            let json = json!({ "project_id": id, "owner_id": owner });
            common.output.print(&format!("{owner} can enter {project}"), &json)?;
        }
    }
    Ok(())
}

fn shown(project: &Found) -> Value {
    json!({
        "project_id": project.project_id, "name": project.name, "created_by": project.created_by,
        "created_at": instant(project.created_at),
    })
}

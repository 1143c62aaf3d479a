//! `project create|list|member|remove-member|token`.

use interlock_client::Project as Found;
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::{project_token, signed_in},
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
    /// End a membership, the tokens that the owner issued in the project, and the clients of its sessions there.
    RemoveMember {
        /// The project, by name or id.
        project: String,
        /// The owner's id.
        owner: String,
        /// Cancel the jobs of its sessions there; else they go on.
        #[arg(long)]
        cancel_jobs: bool,
    },
    /// Tokens of this folder's project.
    #[command(subcommand)]
    Token(project_token::Token),
}

/// Does it.
///
/// # Errors
/// What auth-service refuses.
pub(crate) async fn run(project: Project, common: &Common) -> Result<(), Failure> {
    let caller = signed_in(common)?;
    let auth = caller.auth();
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
        Project::RemoveMember { project, owner, cancel_jobs } => {
            let id = project_name::resolve(&auth, &project).await?;
            let was = auth.remove_member(&id, &owner, cancel_jobs).await?.is_some();
            let text = if was { "is no longer" } else { "was no" };
            let json = json!({ "project_id": id, "owner_id": owner, "was_member": was });
            common.output.print(&format!("{owner} {text} member of {project}"), &json)?;
        }
        Project::Token(token) => project_token::run(token, &caller, common).await?,
    }
    Ok(())
}

fn shown(project: &Found) -> Value {
    json!({
        "project_id": project.project_id, "name": project.name, "created_by": project.created_by,
        "created_at": instant(project.created_at),
    })
}

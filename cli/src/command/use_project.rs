//! `use`: binds a folder to a project, or lists the projects to choose from.

use interlock_client::{Clock, PROJECT_FILE, Project, ProjectFile};
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::signed_in,
    context::Caller,
    failure::Failure,
    output::{instant, table},
    project_name,
};

/// Which project.
#[derive(Debug, clap::Args)]
pub(crate) struct Use {
    /// The project, by name or id.
    #[arg(value_name = "NAME|ID", required_unless_present = "list")]
    project: Option<String>,
    /// List the projects to choose from; the one of this folder is marked.
    #[arg(long, conflicts_with = "project")]
    list: bool,
}

/// Does it.
///
/// # Errors
/// Where the caller can enter no such project, or the file cannot be written; nothing is written then.
pub(crate) async fn run(asked: Use, common: &Common) -> Result<(), Failure> {
    let caller = signed_in(common)?;
    let projects = caller.auth().list_projects().await?;
    match asked.project {
        Some(name) => bind(&caller, project_name::pick(&projects, &name)?, common),
        None => list(&caller, &projects, common),
    }
}

fn bind(caller: &Caller, project: &Project, common: &Common) -> Result<(), Failure> {
    let mut file = ProjectFile::of(project, caller.gateway_at().first(), Clock::system().wall());
    let here = caller.folder().join(PROJECT_FILE);
    if here.symlink_metadata().is_ok() {
        // What others keep in it stays. One that cannot be read is not thrown away.
        let before = ProjectFile::read(&here)
            .map_err(|error| Failure::from(error).next(format!("mend or remove {}", here.display())))?;
        file = file.replacing(before);
    }
    let path = file.write(caller.folder())?.display().to_string();
    let note = "calls from this folder and those below are scoped to it";
    let text = format!("linked {} ({})\nwrote {path}\n{note}", project.name, project.project_id);
    let json = json!({
        "project_id": project.project_id, "project_name": project.name, "path": path, "note": note,
        "created_at": instant(file.created_at),
    });
    Ok(common.output.print(&text, &json)?)
}

fn list(caller: &Caller, projects: &[Project], common: &Common) -> Result<(), Failure> {
    let bound = caller.bound()?.map(|found| found.file.project_id);
    let is_current = |project: &Project| bound.as_deref() == Some(project.project_id.as_str());
    let mark = |project: &Project| if is_current(project) { "*" } else { "" }.to_owned();
    let rows: Vec<_> = projects.iter().map(|p| vec![mark(p), p.project_id.clone(), p.name.clone()]).collect();
    let shown = projects
        .iter()
        .map(|p| json!({ "project_id": p.project_id, "name": p.name, "current": is_current(p) }));
    Ok(common.output.print(&table(&["", "ID", "NAME"], &rows), &Value::Array(shown.collect()))?)
}

//! `whoami`: who the credential stands for, which project this folder is for, and whether they fit.

use std::process::ExitCode;

use interlock_client::{FoundProject, WhoAmI};
use interlock_proto::text::escaped;
use serde_json::{Value, json};

use crate::{
    args::Common,
    command::signed_in,
    failure::{FAILED, Failure, NO_PROJECT_FILE},
    output::{Format, instant},
};

/// Says it. The exit code is 0 where calls from here can succeed, 1 where credential and folder are of different
/// projects, 3 where no folder up from here has a project file, 4 where there is no credential.
///
/// # Errors
/// Where there is no credential, it is no longer good, or the project file is broken.
pub(crate) async fn run(common: &Common) -> Result<ExitCode, Failure> {
    let caller = signed_in(common)?;
    let bound = caller.bound()?;
    let auth = caller.auth();
    let who = auth.whoami().await?;
    let projects = auth.list_projects().await?;
    let warning = bound.as_ref().and_then(|found| {
        let bound = &found.file;
        let enters = projects.iter().any(|project| project.project_id == bound.project_id);
        (!enters).then(|| match &who.project {
            Some((scope, name)) => format!(
                "the token is for {name} ({scope}), this folder for {} ({}): calls will 403",
                bound.project_name, bound.project_id
            ),
            None => format!(
                "{} cannot enter the project of this folder, {} ({}): calls will 403",
                who.owner_id, bound.project_name, bound.project_id
            ),
        })
    });
    common.output.print(&text(&who, bound.as_ref()), &shown(&who, bound.as_ref(), warning.as_deref()))?;
    if common.output == Format::Text {
        if let Some(warning) = &warning {
            anstream::eprintln!("interlock: warning: {}", escaped(warning));
        }
        if bound.is_none() {
            anstream::eprintln!("interlock: no project file from here up; run `interlock use PROJECT`");
        }
    }
    Ok(match (warning, bound) {
        (Some(_), _) => ExitCode::from(FAILED),
        (None, None) => ExitCode::from(NO_PROJECT_FILE),
        (None, Some(_)) => ExitCode::SUCCESS,
    })
}

fn text(who: &WhoAmI, bound: Option<&FoundProject>) -> String {
    let mut lines = vec![
        format!("principal      {}", who.owner_id),
        format!("display name   {}", who.display_name),
        format!("role           {}", who.role),
        format!("credential     {} ({})", who.credential_id, who.kind),
    ];
    match &who.project {
        Some((project, name)) => {
            lines.push(format!("project scope  {name} ({project})"));
            lines.push(format!("scopes         {}", who.scopes.join(" ")));
        }
        None => lines.push("project scope  none: every project that the principal can enter".to_owned()),
    }
    lines.push(format!("expires        {}", who.expires_at.map_or_else(|| "never".to_owned(), instant)));
    match bound {
        Some(FoundProject { file, path }) => {
            lines.push(format!("folder's       {} ({})", file.project_name, file.project_id));
            lines.push(format!("by             {}", path.display()));
        }
        None => lines.push("folder's       none".to_owned()),
    }
    lines.join("\n")
}

fn shown(who: &WhoAmI, bound: Option<&FoundProject>, warning: Option<&str>) -> Value {
    let binding = bound.map(|FoundProject { file, path }| {
        json!({
            "project_id": file.project_id, "project_name": file.project_name, "path": path,
            "api_url": file.api_url, "created_at": instant(file.created_at),
        })
    });
    json!({
        "owner_id": who.owner_id, "display_name": who.display_name, "role": who.role,
        "credential_id": who.credential_id, "kind": who.kind, "owner_session_id": who.owner_session_id,
        "project_id": who.project.as_ref().map(|(id, _)| id),
        "project_name": who.project.as_ref().map(|(_, name)| name), "scopes": who.scopes,
        "expires_at": who.expires_at.map(instant), "binding": binding, "mismatch": warning.is_some(),
        "warning": warning,
    })
}

//! Projects are named by people and known by id.

use interlock_client::{Auth, Project};

use crate::failure::Failure;

/// Whether a text is a project's id, and no name.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with("prj_") || text == "system"
}

/// The id of the project that `name` is the name or the id of.
///
/// # Errors
/// Where the caller can enter no such project.
pub(crate) async fn resolve(auth: &Auth, name: &str) -> Result<String, Failure> {
    if is_id(name) {
        return Ok(name.to_owned());
    }
    let projects = auth.list_projects().await?;
    pick(&projects, name).map(|project| project.project_id.clone())
}

/// The one of these projects that `name` is the name or the id of.
///
/// # Errors
/// Where there is none, or more than one.
pub(crate) fn pick<'p>(projects: &'p [Project], name: &str) -> Result<&'p Project, Failure> {
    let found: Vec<_> = projects.iter().filter(|p| p.project_id == name || p.name == name).collect();
    match found[..] {
        [project] => Ok(project),
        [] => Err(Failure::local(format!("no project `{name}` that you can enter"))
            .next("interlock use --list, interlock project create NAME")),
        _ => {
            let ids = found.iter().map(|p| format!("{} ({})", p.project_id, p.name)).collect();
            Err(Failure::local(format!("`{name}` is more than one project"))
                .facts(ids)
                .next("name it by its id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SQ-11
    #[test]
    fn a_name_leads_to_one_project_or_says_why_not() {
        let project = |id: &str, name: &str| Project {
            project_id: id.to_owned(),
            name: name.to_owned(),
            created_by: String::new(),
            created_at: None,
        };
        let all = [project("prj_1", "one"), project("prj_2", "two"), project("prj_3", "two")];
        assert_eq!(pick(&all, "one").expect("one").project_id, "prj_1");
        assert_eq!(pick(&all, "prj_3").expect("one").project_id, "prj_3");
        let said = format!("{:?}", pick(&all, "two").expect_err("two"));
        assert!(said.contains("prj_2") && said.contains("prj_3") && !said.contains("prj_1"), "{said}");
        assert!(pick(&all, "three").is_err());
    }
}

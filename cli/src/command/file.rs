//! `file put|get|list|rm`.

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use interlock_client::{Download, File as Found, Files, FilesOf, PutFile};
use interlock_proto::text::escaped;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::{
    args::Common,
    command::member::{gateway_of, id_of},
    context::Caller,
    failure::Failure,
    output::{Format, instant, table},
};

/// What to do with files.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum File {
    /// Store a file, in place of the one of that name.
    Put {
        /// The session, by name or id.
        session: String,
        /// The file; `-` reads standard input.
        path: PathBuf,
        /// What it is called there; the file's own name by default.
        #[arg(long, required_if_eq("path", "-"))]
        name: Option<String>,
    },
    /// Read a file.
    Get {
        /// The session, by name or id.
        session: String,
        /// What it is called.
        name: String,
        /// Where to; the last part of its name, in this folder, by default. `-` writes standard output.
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
        /// In place of a file that is there.
        #[arg(long)]
        force: bool,
    },
    /// List the files of a session, by name.
    List {
        /// The session, by name or id.
        session: String,
    },
    /// Delete a file.
    Rm {
        /// The session, by name or id.
        session: String,
        /// What it is called.
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// What gateway-service refuses, and what this machine's files do.
pub(crate) async fn run(file: File, common: &Common) -> Result<(), Failure> {
    let caller = Caller::open(common)?;
    let session = match &file {
        File::Put { session, .. }
        | File::Get { session, .. }
        | File::List { session }
        | File::Rm { session, .. } => session,
    };
    let id = id_of(&caller, common, session).await?;
    let files = gateway_of(&caller, common, &id).await?.files();
    let of = FilesOf::Session(&id);
    match file {
        File::Put { path, name, .. } => put(&files, of, &path, name, common.output).await?,
        File::Get { name, to, force, .. } => get(&files, of, &name, to, force, common.output).await?,
        File::List { .. } => {
            let mut found = files.list(of).await?;
            found.sort_by(|a, b| a.name.cmp(&b.name));
            let rows: Vec<_> = found.iter().map(row).collect();
            let heading = ["NAME", "BYTES", "STORED", "SHA-256"];
            common.output.print(&table(&heading, &rows), &Value::Array(found.iter().map(shown).collect()))?;
        }
        File::Rm { name, .. } => {
            let deleted = files.delete(of, &name).await?;
            let text = if deleted { "deleted" } else { "there is no such file" };
            common.output.print(text, &json!({ "name": name, "deleted": deleted }))?;
        }
    }
    Ok(())
}

async fn put(
    files: &Files,
    of: FilesOf<'_>,
    path: &Path,
    name: Option<String>,
    format: Format,
) -> Result<(), Failure> {
    let (contents, size): (Box<dyn AsyncRead + Send + Unpin>, _) = if path == Path::new("-") {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        (Box::new(tokio::fs::File::from_std(input.into())), None)
    } else {
        let cannot = |error| Failure::local(format!("cannot read {}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        let about = file.metadata().await.map_err(cannot)?;
        if about.is_dir() {
            return Err(Failure::usage(format!("{} is a folder", path.display())));
        }
        // A pipe says no size.
        let size = about.is_file().then_some(about.len());
        (Box::new(file), size)
    };
    let name = match name {
        Some(name) => name,
        None => own_name(path)?,
    };
    let (stored, replaced) = files.put(of, &name, PutFile { size, sha256: None }, contents).await?;
    let instead = if replaced { ", in place of another" } else { "" };
    let text = format!("{} stored: {} bytes{instead}", escaped(&stored.name), stored.size);
    let mut json = shown(&stored);
    json["replaced"] = json!(replaced);
    Ok(format.print(&text, &json)?)
}

fn own_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| Failure::usage("the file's own name cannot be used").next("--name NAME"))
}

async fn get(
    files: &Files,
    of: FilesOf<'_>,
    name: &str,
    to: Option<PathBuf>,
    force: bool,
    format: Format,
) -> Result<(), Failure> {
    if to.as_deref() == Some(Path::new("-")) {
        let mut download = files.get(of, name).await?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        return copy(&mut download, &mut tokio::fs::File::from_std(output.into())).await;
    }
    let to = match to {
        Some(to) => to,
        None => last_part(name)?,
    };
    let there = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    let taken = || Failure::local(format!("{} is there already", to.display())).next("--force");
    if !force && to.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let mut download = files.get(of, name).await?;
    // Beside its place, so that there is never half of it, and whatever stands there is not followed but replaced.
    let cannot = |error: io::Error| Failure::local(format!("cannot write {}: {error}", to.display()));
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = tempfile::Builder::new().prefix(".interlock-").tempfile_in(folder).map_err(cannot)?;
    let mut out = tokio::fs::File::from_std(whole.reopen().map_err(cannot)?);
    copy(&mut download, &mut out).await?;
    drop(out);
    let kept = if force { whole.persist(&to) } else { whole.persist_noclobber(&to) };
    kept.map_err(|error| if there(&error.error) { taken() } else { cannot(error.error) })?;
    let file = download.file();
    let text = format!("{} bytes in {}", file.size, to.display());
    let mut json = shown(file);
    json["path"] = json!(to.display().to_string());
    Ok(format.print(&text, &json)?)
}

/// Where a file goes that nobody named a place for. What a service says is never a path here.
fn last_part(name: &str) -> Result<PathBuf, Failure> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    match last {
        "" | "." | ".." => Err(Failure::usage("this name says no place").next("--to PATH")),
        last => Ok(PathBuf::from(last)),
    }
}

async fn copy(download: &mut Download, out: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    while let Some(part) = download.next().await? {
        out.write_all(&part).await?;
    }
    Ok(out.flush().await?)
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row(file: &Found) -> Vec<String> {
    vec![file.name.clone(), file.size.to_string(), instant(file.stored_at), hex(&file.sha256)]
}

fn shown(file: &Found) -> Value {
    json!({
        "name": file.name, "size": file.size, "sha256": hex(&file.sha256), "project_id": file.project_id,
        "epoch": file.epoch, "stored_at": instant(file.stored_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_into_this_folder_whatever_it_is_called() {
        for (name, place) in [("a", "a"), ("out/b.txt", "b.txt"), ("x\\y", "y")] {
            assert_eq!(last_part(name).ok(), Some(PathBuf::from(place)));
        }
        for bad in ["", "..", "a/..", "a/", "."] {
            assert!(last_part(bad).is_err(), "{bad}");
        }
    }
}

//! `sibyl resolver new`: a working project from a template.
//!
//! Every template is a resolver that works as it stands, by the name of [`templates::PLACEHOLDER`]; a new project is
//! the template under another name. Nothing that exists is overwritten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sibyl_core::registry::check_name;

use super::super::failure::Failure;
use super::super::output;
use super::templates::{self, Language};

/// Begin a resolver: a project that builds, with a test
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver new --lang rust tags
  sibyl resolver new --lang python ~/resolvers/tags

The project's README.md says how to build, test and push it in its language.")]
pub(in super::super) struct Args {
    /// The project's folder. It must be empty or not be there.
    dir: PathBuf,
    /// What to write it in.
    #[arg(long, alias = "language", value_enum)]
    lang: Language,
    /// Name of the resolver, if not that of the folder.
    #[arg(long)]
    name: Option<String>,
}

/// `sibyl resolver new`.
pub(in super::super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = &args.dir;
    let folder = dir.file_name().map(|name| name.to_string_lossy());
    let name = args.name.as_deref().or(folder.as_deref());
    let name = name.unwrap_or_default();
    check(name)?;
    must_be_free(dir)?;
    for (path, text) in templates::files(args.lang) {
        let text = text.replace(templates::PLACEHOLDER, name);
        write(&dir.join(path), &text)?;
    }
    let shown = dir.display();
    output::print(format!(
        "{shown} is a resolver in {}: read {shown}/README.md, then run `sibyl resolver build {shown}`\n",
        args.lang.title()
    ))
}

/// The name must serve a cluster, and the package managers of all languages.
fn check(name: &str) -> Result<(), Failure> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let ends_well = name.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit());
    if check_name("resolver", name).is_ok() && starts_well && ends_well && !name.contains('.') {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{name:?} is no name for a project: 1 to 64 of a-z 0-9 _ -, a letter first and no - or _ last"
    )))
}

fn must_be_free(dir: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(source) => {
            return Err(Failure::File {
                doing: "look into",
                path: dir.to_owned(),
                source,
            });
        }
    };
    if entries {
        return Err(Failure::Usage(format!(
            "{} is there and not empty: name another folder",
            dir.display()
        )));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::File {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = fs::File::create_new(path).map_err(failed)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

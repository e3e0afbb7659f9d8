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
  sibyl resolver new tags --language rust
  sibyl resolver new tags --language python --dir ~/resolvers/tags

The project's README.md says how to build, test and push it in its language.")]
pub(in super::super) struct Args {
    /// Name of the resolver: 1 to 64 of a-z 0-9 . _ - without _ in front.
    name: String,
    /// What to write it in.
    #[arg(long, value_enum)]
    language: Language,
    /// Where; a folder of the resolver's name if absent. It must be empty or not be there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `sibyl resolver new`.
pub(in super::super) fn run(args: &Args) -> Result<(), Failure> {
    check(&args.name)?;
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.name));
    must_be_free(&dir)?;
    for (path, text) in templates::files(args.language) {
        write(
            &dir.join(path),
            &text.replace(templates::PLACEHOLDER, &args.name),
        )?;
    }
    let shown = dir.display();
    output::print(format!(
        "{shown} is a resolver in {}: read {shown}/README.md, then run `sibyl resolver build {shown}`\n",
        args.language.title()
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
            "{} is there and not empty: name another folder with --dir",
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

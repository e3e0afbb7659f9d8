//! `sibyl resolver push|bind|unbind|list|logs|try`: bring a module to the cluster and put it to work. `check` and
//! `rollback` are in files of their own; `new`, `build` and `test` are in `author/`.
//!
//! The node checks and compiles; this only carries bytes and shows the answers. `push` and `bind` are two steps
//! on purpose: a version can be tried before any bucket uses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::client::{Client, Error, Parts, resolver_path};
use super::connection::Connection;
use super::failure::Failure;
use super::{author, bucket, output, rollback};

/// Largest module a node takes.
const MAX_MODULE_BYTES: u64 = 32 << 20;

/// Compiling a large module takes seconds on every node, in a debug build many.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(180);

/// Begin, build, test, check, upload, bind, list and try resolvers
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(author::new::Args),
    Build(author::build::Args),
    Test(author::test::Args),
    /// Upload a component, a core module or WAT as a new version
    #[command(
        after_help = "Examples:\n  sibyl resolver push cart target/wasm32-unknown-unknown/release/cart.wasm\n  sibyl resolver push longest longest.wat\n  sibyl resolver push my-resolver my-resolver/"
    )]
    Push {
        /// Name of the resolver.
        name: String,
        /// The module, or a project's folder; `.wat` files are sent as text.
        #[arg(value_name = "FILE|DIR")]
        file: PathBuf,
        /// The law check: quick, within seconds; thorough, in the background of the node; or off.
        #[arg(long, default_value = "quick", value_parser = ["quick", "thorough", "off"])]
        check: String,
        #[command(flatten)]
        connection: Connection,
    },
    Bind(BindArgs),
    /// Take the resolver off a bucket; conflicts show as siblings again
    #[command(after_help = "Example:\n  sibyl resolver unbind carts")]
    Unbind {
        /// The bucket.
        bucket: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// All resolvers, or the versions of one
    #[command(
        after_help = "Examples:\n  sibyl resolver list\n  sibyl resolver list cart --output json"
    )]
    List {
        /// Name of the resolver.
        name: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// What a resolver logged on the node that is asked
    #[command(after_help = "Example:\n  sibyl resolver logs cart --url http://127.0.0.1:7071")]
    Logs {
        /// Name of the resolver.
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Bind the version that was uploaded before the one a bucket has
    #[command(
        after_help = "Examples:\n  sibyl resolver rollback carts\n  sibyl resolver rollback carts --version sha256:…"
    )]
    Rollback {
        /// The bucket.
        bucket: String,
        /// Digest of the version to go back to.
        #[arg(long, value_name = "DIGEST")]
        version: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    Try(TryArgs),
    Check(super::check::Args),
}

/// Let a resolver merge the conflicts of a bucket
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver bind carts cart
  sibyl resolver bind docs json-merge --config '{\"rules\": [{\"path\": \"/tags\", \"rule\": \"union\"}]}'
  sibyl resolver bind carts cart --version sha256:…          roll back to an older version")]
struct BindArgs {
    /// The bucket.
    bucket: String,
    /// Name of the resolver.
    name: String,
    /// Digest of the version; the newest upload if absent.
    #[arg(long, value_name = "DIGEST")]
    version: Option<String>,
    /// The resolver's configuration for this bucket.
    #[arg(long, value_name = "JSON", value_parser = bucket::object)]
    config: Option<Map<String, Value>>,
    /// What its certificate must say: enforce, foldable or better; warn, deterministic or better; off, anything.
    #[arg(long, default_value = "enforce", value_parser = ["enforce", "warn", "off"])]
    laws: String,
    /// active: merge; paused: show siblings.
    #[arg(long, default_value = "active", value_parser = ["active", "paused"])]
    mode: String,
    #[command(flatten)]
    connection: Connection,
}

/// Run a resolver on siblings from the command line; stores nothing
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sibyl resolver try set-union '[1,2]' '[2,3]'
  sibyl resolver try cart @mine.json @yours.json --output json")]
struct TryArgs {
    /// Name of the resolver.
    name: String,
    /// Values of two or more siblings; @FILE reads one from a file.
    #[arg(required = true, num_args = 2..)]
    siblings: Vec<String>,
    /// Digest of the version; the newest upload if absent.
    #[arg(long, value_name = "DIGEST")]
    version: Option<String>,
    /// The resolver's configuration.
    #[arg(long, value_name = "JSON", value_parser = bucket::object)]
    config: Option<Map<String, Value>>,
    /// The key that the resolver is told.
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// `sibyl resolver`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::New(args) => author::new::run(args),
        Command::Build(args) => author::build::run(args),
        Command::Test(args) => author::test::run(args),
        Command::Push {
            name,
            file,
            check,
            connection,
        } => push(name, file, check, connection),
        Command::Bind(args) => bind(args),
        Command::Unbind { bucket, connection } => {
            let fields = Map::from_iter([("resolver".to_owned(), Value::Null)]);
            let answer = bucket::change(&connection.client()?, bucket, &fields)?;
            output::print(format!(
                "bucket {bucket} has no resolver now (trace id {})\n",
                answer.trace_id()
            ))
        }
        Command::List {
            name: Some(name),
            connection,
        } => versions(name, connection),
        Command::List {
            name: None,
            connection,
        } => names(connection),
        Command::Logs { name, connection } => logs(name, connection),
        Command::Rollback {
            bucket,
            version,
            connection,
        } => rollback::run(bucket, version.as_deref(), connection),
        Command::Try(args) => try_out(args),
        Command::Check(args) => super::check::run(args),
    }
}

/// Uploads a module and returns its version object.
pub(super) fn upload(
    client: &Client,
    name: &str,
    media_type: &str,
    module: &[u8],
    check: &str,
) -> Result<Value, Error> {
    let parts = Parts::default()
        .header("content-type", media_type)
        .query("check", check)
        .body(module);
    client.put(&resolver_path(name), parts)?.json()
}

/// The fields of a bucket that bind a version.
pub(super) fn binding(
    name: &str,
    version: &str,
    config: Option<&Map<String, Value>>,
    mode: &str,
    laws: &str,
) -> Map<String, Value> {
    let mut resolver = json!({ "name": name, "version": version, "mode": mode, "laws": laws });
    if let (Some(config), Some(fields)) = (config, resolver.as_object_mut()) {
        fields.insert("config".to_owned(), Value::Object(config.clone()));
    }
    Map::from_iter([("resolver".to_owned(), resolver)])
}

pub(super) fn patient(connection: &Connection) -> Result<Client, Failure> {
    Ok(Client::new(
        &connection.url,
        connection.timeout.max(COMPILE_TIMEOUT),
    )?)
}

fn push(name: &str, file: &Path, check: &str, connection: &Connection) -> Result<(), Failure> {
    let file = author::module(file)?;
    let module = read_file(&file)?;
    let text = file.extension().is_some_and(|extension| extension == "wat");
    let waiting = output::spinner(format!("checking and compiling {}", file.display()));
    let version = upload(
        &patient(connection)?,
        name,
        if text {
            "text/plain"
        } else {
            "application/wasm"
        },
        &module,
        check,
    );
    waiting.finish_and_clear();
    let version = version?;
    if connection.json() {
        return output::print_json(&version);
    }
    let field = |name: &str| version.get(name).map(output::cell).unwrap_or_default();
    output::print_table(&output::facts(&[
        ("resolver", name.to_owned()),
        ("version", field("digest")),
        ("kind", field("kind")),
        ("bytes", field("bytes")),
        (
            "certificate",
            version
                .pointer("/certificate/tier")
                .map(output::cell)
                .unwrap_or_default(),
        ),
        (
            "unchecked because",
            version
                .pointer("/certificate/reason")
                .map(output::cell)
                .unwrap_or_default(),
        ),
    ]))?;
    let laws = version.pointer("/certificate/laws");
    for law in laws.and_then(Value::as_array).into_iter().flatten() {
        if law.get("holds") == Some(&Value::Bool(false)) {
            let field = |name: &str| output::field(law, name);
            output::print(format!(
                "{} is broken: it {}\n  {}\n",
                field("law"),
                field("suspicion"),
                field("remedy")
            ))?;
        }
    }
    Ok(())
}

fn bind(args: &BindArgs) -> Result<(), Failure> {
    let client = patient(&args.connection)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => newest(&client, &args.name)?,
    };
    let config = args.config.as_ref();
    let fields = binding(&args.name, &version, config, &args.mode, &args.laws);
    let waiting = output::spinner("every node gets the module ready");
    let answer = bucket::change(&client, &args.bucket, &fields);
    waiting.finish_and_clear();
    let answer = answer?;
    if args.connection.json() {
        return output::print_json(
            &json!({ "bucket": args.bucket, "resolver": fields["resolver"], "trace_id": answer.trace_id() }),
        );
    }
    output::print(format!(
        "bucket {} is merged by {}@{version} (trace id {})\n",
        args.bucket,
        args.name,
        answer.trace_id()
    ))
}

/// Digest of the version that was uploaded last.
fn newest(client: &Client, name: &str) -> Result<String, Failure> {
    let body = client.get(&resolver_path(name), Parts::default())?.json()?;
    let versions = output::entries(&body, "versions");
    let uploaded = |version: &&Value| {
        version
            .get("uploaded_at")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    // RFC 3339 instants of one node sort as text.
    let newest = versions
        .iter()
        .max_by_key(uploaded)
        .and_then(|version| version.get("digest")?.as_str());
    newest
        .map(str::to_owned)
        .ok_or_else(|| Failure::Failed(format!("resolver {name} has no version to bind")))
}

fn logs(name: &str, connection: &Connection) -> Result<(), Failure> {
    let path = format!("{}/logs", resolver_path(name));
    let body = connection.client()?.get(&path, Parts::default())?.json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    for line in output::entries(&body, "lines") {
        let field = |name: &str| output::field(line, name);
        output::print(format!(
            "{} {} {} {} (trace id {})\n",
            field("at"),
            field("level"),
            field("bucket"),
            field("message"),
            field("trace_id")
        ))?;
    }
    Ok(())
}

fn names(connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get("/v1/resolvers", Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    let mut table = output::table(&["resolver", "versions", "bound"]);
    for resolver in output::entries(&body, "resolvers") {
        let versions = output::entries(resolver, "versions");
        let name = resolver.get("name").unwrap_or(resolver);
        let buckets = versions
            .iter()
            .filter_map(|version| version.get("bound")?.as_array())
            .flatten();
        let bound: Vec<String> = buckets.map(output::cell).collect();
        table.add_row([
            output::cell(name),
            versions.len().to_string(),
            bound.join(", "),
        ]);
    }
    output::print_table(&table)
}

fn versions(name: &str, connection: &Connection) -> Result<(), Failure> {
    let body = connection
        .client()?
        .get(&resolver_path(name), Parts::default())?
        .json()?;
    if connection.json() {
        return output::print_json(&body);
    }
    let mut table = output::table(&[
        "version",
        "kind",
        "bytes",
        "uploaded",
        "certificate",
        "bound",
        "nodes",
    ]);
    for version in output::entries(&body, "versions") {
        let field = |name: &str| output::field(version, name);
        let tier = version
            .pointer("/certificate/tier")
            .map_or_else(|| "-".to_owned(), output::cell);
        let nodes = version
            .get("nodes")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let nodes: Vec<String> = nodes
            .map(|(node, state)| format!("{node} {}", output::cell(state)))
            .collect();
        let (digest, kind, bytes) = (field("digest"), field("kind"), field("bytes"));
        table.add_row([
            digest,
            kind,
            bytes,
            field("uploaded_at"),
            tier,
            field("bound"),
            nodes.join(", "),
        ]);
    }
    output::print_table(&table)
}

fn try_out(args: &TryArgs) -> Result<(), Failure> {
    let siblings: Vec<Value> = args
        .siblings
        .iter()
        .map(|given| Ok(json!({ "value": output::bytes_to_json(&sibling(given)?) })))
        .collect::<Result<_, Failure>>()?;
    let mut request = json!({ "siblings": siblings });
    let fields = request.as_object_mut().expect("built as an object above");
    fields.extend(
        args.version
            .clone()
            .map(|version| ("version".to_owned(), version.into())),
    );
    fields.extend(
        args.config
            .clone()
            .map(|config| ("config".to_owned(), config.into())),
    );
    fields.extend(args.key.clone().map(|key| ("key".to_owned(), key.into())));
    let path = format!("{}/try", resolver_path(&args.name));
    let body = patient(&args.connection)?
        .post(&path, Parts::default().json(&request))?
        .json()?;
    let failed = body.get("outcome").and_then(Value::as_str) == Some("failed");
    if args.connection.json() {
        output::print_json(&body)?;
    } else {
        print_try(&body)?;
    }
    if failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn sibling(given: &str) -> Result<Vec<u8>, Failure> {
    given.strip_prefix('@').map_or_else(
        || Ok(given.as_bytes().to_vec()),
        |file| read_file(Path::new(file)),
    )
}

fn print_try(body: &Value) -> Result<(), Failure> {
    let field = |pointer: &str| {
        body.pointer(pointer)
            .filter(|v| !v.is_null())
            .map(output::cell)
            .unwrap_or_default()
    };
    output::print_table(&output::facts(&[
        ("outcome", field("/outcome")),
        ("value", field("/value")),
        ("index", field("/index")),
        ("indices", field("/indices")),
        ("failure", field("/failure/kind")),
        ("message", field("/failure/message")),
        ("fuel", field("/fuel")),
        ("memory bytes", field("/memory_bytes")),
        ("microseconds", field("/duration_us")),
    ]))?;
    for line in output::entries(body, "log") {
        let part = |name: &str| line.get(name).map(output::cell).unwrap_or_default();
        output::print(format!("log {}: {}\n", part("level"), part("message")))?;
    }
    Ok(())
}

/// A module, or a value for one.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = |source| Failure::File {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(file)?.len();
    if bytes > MAX_MODULE_BYTES {
        return Err(file(std::io::Error::other(format!(
            "it has {bytes} bytes, a node takes {MAX_MODULE_BYTES}"
        ))));
    }
    std::fs::read(path).map_err(file)
}

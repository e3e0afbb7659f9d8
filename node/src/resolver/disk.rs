//! What the platform keeps on disk: module bytes by digest, and compiled code that only this node believes.
//!
//! Module bytes verify themselves. Compiled code runs unchecked once loaded, so an entry counts only with a
//! valid MAC under a random key of this node, bound to digest, engine and settings; anything else is removed
//! and made again. Files appear whole (temporary name, sync, rename) and are never edited in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use sibyl_core::id::Digest;

use super::admission::Kind;
use super::child::Artifact;

/// Begins a cache entry and its MAC's input.
const MAGIC: &[u8; 8] = b"SIBYLM01";

const MAC_BYTES: usize = 32;

/// Compiled code on disk; the oldest entries go first. 50 modules of the size of a QuickJS one fit five times.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Keeps a module's bytes under a directory that no platform has opened.
pub(super) fn keep_offline(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let modules = dir.join("modules");
    fs::create_dir_all(&modules)?;
    put(&modules.join(hex(&Digest::of(bytes).0)), &[bytes])?;
    sync_dir(dir)
}

/// Module bytes and compiled code under one directory.
pub(super) struct Disk {
    modules: PathBuf,
    compiled: PathBuf,
    key: [u8; 32],
    fingerprint: [u8; 32],
}

impl Disk {
    /// Opens or creates the directory, removes left-over temporary files and code of other engines.
    pub(super) fn open(dir: &Path, fingerprint: [u8; 32]) -> io::Result<Self> {
        let disk = Self {
            modules: dir.join("modules"),
            compiled: dir.join("compiled"),
            key: key(dir)?,
            fingerprint,
        };
        fs::create_dir_all(&disk.modules)?;
        fs::create_dir_all(&disk.compiled)?;
        let suffix = disk.suffix();
        remove_unless(&disk.modules, |name| !name.starts_with('.'))?;
        remove_unless(&disk.compiled, |name| {
            !name.starts_with('.') && name.ends_with(&suffix)
        })?;
        sync_dir(dir)?;
        Ok(disk)
    }

    /// Keeps module bytes; they must have that digest.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if Digest::of(bytes) != *digest {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("these bytes are not {digest}"),
            ));
        }
        let path = self.module_path(digest);
        if path.exists() && self.bytes(digest)?.is_some() {
            // Kept anew: whoever erases what is long unused must see that it is not.
            return File::open(&path)?.set_modified(SystemTime::now());
        }
        put(&path, &[bytes])
    }

    /// The modules whose bytes were last kept so long ago. A name that is no digest is none of them.
    pub(super) fn kept_for(&self, age: Duration) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.modules)? {
            let entry = entry?;
            let old = entry
                .metadata()?
                .modified()?
                .elapsed()
                .is_ok_and(|elapsed| elapsed >= age);
            let name = format!("sha256:{}", entry.file_name().to_string_lossy());
            found.extend(name.parse::<Digest>().ok().filter(|_| old));
        }
        Ok(found)
    }

    /// The bytes of a module. Bytes that rotted are removed, so that they are fetched again.
    pub(super) fn bytes(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let path = self.module_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Ok(_) => {
                tracing::warn!(%digest, "the kept bytes of a resolver rotted, they will be fetched again");
                fs::remove_file(&path)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn is_kept(&self, digest: &Digest) -> bool {
        self.module_path(digest).exists()
    }

    /// Removes bytes and code of a module.
    pub(super) fn forget(&self, digest: &Digest) -> io::Result<()> {
        remove(&self.module_path(digest))?;
        remove(&self.code_path(digest))
    }

    /// Compiled code, if there is an entry that this node made for this engine.
    pub(super) fn code(&self, digest: &Digest) -> Option<Artifact> {
        let path = self.code_path(digest);
        let entry = fs::read(&path).ok()?;
        let artifact = self.authentic(digest, &entry);
        if artifact.is_none() {
            tracing::warn!(%digest, "a compiled resolver is corrupt or not of this node, it is compiled again");
            // If it stays, the next start says the same.
            let _ = fs::remove_file(&path);
        }
        artifact
    }

    /// Keeps compiled code of this node's own child.
    pub(super) fn keep_code(&self, digest: &Digest, artifact: &Artifact) -> io::Result<()> {
        let kind = [kind_byte(artifact.kind)];
        let mac: [u8; MAC_BYTES] = self
            .mac(digest, kind[0], &artifact.code)
            .finalize()
            .into_bytes()
            .into();
        put(
            &self.code_path(digest),
            &[MAGIC, &mac, &kind, &artifact.code],
        )?;
        self.evict()
    }

    fn authentic(&self, digest: &Digest, entry: &[u8]) -> Option<Artifact> {
        let (mac, rest) = entry.strip_prefix(MAGIC)?.split_at_checked(MAC_BYTES)?;
        let (kind, code) = rest.split_first()?;
        self.mac(digest, *kind, code).verify_slice(mac).ok()?;
        Some(Artifact {
            kind: kind_of(*kind)?,
            code: code.to_vec(),
        })
    }

    fn mac(&self, digest: &Digest, kind: u8, code: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for part in [&MAGIC[..], &self.fingerprint, &digest.0, &[kind], code] {
            mac.update(part);
        }
        mac
    }

    /// Removes the oldest code until the rest fits. Ends, as every turn removes one.
    fn evict(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.compiled)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            entries.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        // The last one is the newest: what was just made stays, whatever its size.
        for (_, bytes, path) in entries.iter().take(entries.len().saturating_sub(1)) {
            if total <= CACHE_BYTES_MAX {
                break;
            }
            remove(path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn module_path(&self, digest: &Digest) -> PathBuf {
        self.modules.join(hex(&digest.0))
    }

    fn code_path(&self, digest: &Digest) -> PathBuf {
        self.compiled
            .join(format!("{}{}", hex(&digest.0), self.suffix()))
    }

    /// Names the engine, so that a start with another one finds nothing of this.
    fn suffix(&self) -> String {
        format!(".{}", hex(&self.fingerprint[..8]))
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Component => 0,
        Kind::Core => 1,
        Kind::Wat => 2,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    [Kind::Component, Kind::Core, Kind::Wat]
        .into_iter()
        .find(|kind| kind_byte(*kind) == byte)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The node's key. One that others could read, or of a wrong length, is replaced: its entries are made again.
fn key(dir: &Path) -> io::Result<[u8; 32]> {
    fs::create_dir_all(dir)?;
    let path = dir.join("compiled.key");
    match File::open(&path) {
        Ok(mut file) => {
            let private = file.metadata()?.permissions().mode() & 0o077 == 0;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if let (true, Ok(key)) = (private, bytes.try_into()) {
                return Ok(key);
            }
            tracing::warn!(
                "the key of compiled resolvers was damaged or readable by others, a new one is made"
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key: [u8; 32] = rand::random();
    put(&path, &[&key])?;
    Ok(key)
}

/// Writes a whole file: temporary name, sync, rename, sync of the directory. Readable by this user only.
fn put(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        unreachable!("every path here is made by joining a name to a directory");
    };
    let temporary = dir.join(format!(
        ".{}.{:016x}",
        name.to_string_lossy(),
        rand::random::<u64>()
    ));
    let written = write_new(&temporary, parts).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        remove(&temporary)?;
    }
    written.and_then(|()| sync_dir(dir))
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_unless(dir: &Path, stays: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !stays(&entry.file_name().to_string_lossy()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

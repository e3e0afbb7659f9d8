//! Reads a backup part by part, each checked before it is believed.
//!
//! It holds one part in memory, and grows its buffer only as bytes arrive, so a damaged length costs nothing.
//! Only [`Read::End`] says that what came before was the whole.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sibyl_core::backup::{Bad, Counts, Header, MAGIC, PREFIX_BYTES, Part, Read, Reader};

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a file is not the backup it should be.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    /// Damaged, cut off, or something else.
    #[error("{} is not a whole backup: {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Bad,
    },
    /// The operating system cannot read it.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The parts of a backup, in order.
pub struct Parts {
    path: PathBuf,
    source: Box<dyn io::Read>,
    reader: Reader,
    header: Header,
    end: Option<Counts>,
}

impl Parts {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`NotWhole`].
    pub fn open(path: &Path) -> Result<Self, NotWhole> {
        let file = File::open(path).map_err(|source| NotWhole::Io {
            path: path.to_owned(),
            source,
        })?;
        let source = BufReader::with_capacity(CHUNK_BYTES, file);
        Self::new(path, Box::new(source))
    }

    /// The same of anything that gives bytes; `path` stands in messages.
    ///
    /// # Errors
    /// [`NotWhole`].
    pub fn new(path: &Path, mut source: Box<dyn io::Read>) -> Result<Self, NotWhole> {
        let bad = |why| NotWhole::Bad {
            path: path.to_owned(),
            why,
        };
        let magic = exactly(&mut source, MAGIC.len()).map_err(|source| NotWhole::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut reader = Reader::magic(&magic).map_err(bad)?;
        match read(&mut source, &mut reader).map_err(|trouble| trouble.of(path))? {
            Some(Read::Header(header)) => Ok(Self {
                path: path.to_owned(),
                source,
                reader,
                header: *header,
                end: None,
            }),
            _ => Err(bad(Bad::Truncated { at: 0 })),
        }
    }

    /// What was backed up, and when.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next part; `None` once the last one proved that all of them are whole.
    ///
    /// # Errors
    /// [`NotWhole`].
    pub fn part(&mut self) -> Result<Option<Part>, NotWhole> {
        let trouble = |trouble: Trouble| trouble.of(&self.path);
        let at = self.reader.at();
        match read(&mut self.source, &mut self.reader).map_err(trouble)? {
            Some(Read::Part(part)) => Ok(Some(part)),
            Some(Read::End(counts)) => {
                self.end = Some(counts);
                // Nothing may follow; a reader that has ended refuses whatever does.
                match read(&mut self.source, &mut self.reader).map_err(trouble)? {
                    None => Ok(None),
                    Some(_) => Err(trouble(Trouble::Bad(Bad::Trailing { at }))),
                }
            }
            Some(Read::Header(_)) => Err(trouble(Trouble::Bad(Bad::Malformed { at }))),
            None => Err(trouble(Trouble::Bad(Bad::Truncated { at }))),
        }
    }

    /// What there was, once [`Parts::part`] said that it was all.
    pub fn counts(&self) -> Counts {
        self.end.unwrap_or_default()
    }
}

/// Reads a whole backup and believes nothing of it before its end.
///
/// # Errors
/// [`NotWhole`].
pub fn verify(path: &Path) -> Result<(Header, Counts), NotWhole> {
    let mut parts = Parts::open(path)?;
    while parts.part()?.is_some() {}
    Ok((parts.header().clone(), parts.counts()))
}

enum Trouble {
    Bad(Bad),
    Io(io::Error),
}

impl Trouble {
    fn of(self, path: &Path) -> NotWhole {
        let path = path.to_owned();
        match self {
            Self::Bad(why) => NotWhole::Bad { path, why },
            Self::Io(source) => NotWhole::Io { path, source },
        }
    }
}

/// The next part; `None` if there is not a single byte any more.
fn read(source: &mut dyn io::Read, reader: &mut Reader) -> Result<Option<Read>, Trouble> {
    let at = reader.at();
    let prefix = exactly(source, PREFIX_BYTES).map_err(Trouble::Io)?;
    if prefix.is_empty() {
        return Ok(None);
    }
    let cut = || Trouble::Bad(Bad::Truncated { at });
    let prefix: &[u8; PREFIX_BYTES] = prefix.as_slice().try_into().map_err(|_| cut())?;
    let length = reader.length(prefix).map_err(Trouble::Bad)?;
    let rest = exactly(source, length).map_err(Trouble::Io)?;
    if rest.len() < length {
        return Err(cut());
    }
    reader
        .part(prefix, &Bytes::from(rest))
        .map(Some)
        .map_err(Trouble::Bad)
}

/// So many bytes, or fewer at the end.
fn exactly(source: &mut dyn io::Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(CHUNK_BYTES));
    source.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

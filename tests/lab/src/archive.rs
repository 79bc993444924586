//! Initial RAM file systems: cpio archives that are written from a list of entries.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, ModeFileType, trailer};

/// Why an archive can't be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub(crate) struct ArchiveError {
    /// The file that can't be read, or the archive that can't be written.
    pub(crate) path: PathBuf,
    /// Why not.
    pub(crate) error: io::Error,
}

/// What is to be in an archive. The folders above a file come by themselves.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    folders: BTreeSet<String>,
    files: Vec<(String, Content)>,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Script(Vec<u8>),
    Link(String),
}

impl Archive {
    /// An empty folder, as `dev` or `sys/kernel`.
    pub(crate) fn folder(mut self, name: &str) -> Self {
        self.enter(name);
        self
    }

    /// A copy of a file of this host, executable.
    pub(crate) fn file(mut self, name: &str, source: &Path) -> Self {
        self.push(name, Content::File(source.to_owned()));
        self
    }

    /// A script.
    pub(crate) fn script(mut self, name: &str, text: &str) -> Self {
        self.push(name, Content::Script(text.as_bytes().to_vec()));
        self
    }

    /// A symbolic link.
    pub(crate) fn link(mut self, name: &str, target: &str) -> Self {
        self.push(name, Content::Link(target.to_owned()));
        self
    }

    fn push(&mut self, name: &str, content: Content) {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.enter(folder);
        }
        self.files.push((name.to_owned(), content));
    }

    fn enter(&mut self, folder: &str) {
        let ends = folder.match_indices('/').map(|(end, _)| end).chain([folder.len()]);
        self.folders.extend(ends.filter_map(|end| folder.get(..end)).map(ToOwned::to_owned));
    }

    /// Writes it in the format that Linux unpacks (`newc`).
    pub(crate) fn write(&self, path: &Path, mut output: impl Write) -> Result<(), ArchiveError> {
        let failed = |error| ArchiveError { path: path.to_owned(), error };
        let mut inodes = 1..;
        let mut builder = |name: &str| Builder::new(name).ino(inodes.next().unwrap_or(0)).nlink(1);
        for folder in &self.folders {
            let entry = builder(folder).mode(0o755).set_mode_file_type(ModeFileType::Directory);
            entry.write(&mut output, 0).finish().map_err(failed)?;
        }
        for (name, content) in &self.files {
            let (kind, bytes) = content.read()?;
            let size = u32::try_from(bytes.len()).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
            let mut entry = builder(name).mode(0o755).set_mode_file_type(kind).write(&mut output, size);
            entry.write_all(&bytes).and_then(|()| entry.finish()).map_err(failed)?;
        }
        trailer(&mut output).and_then(|output| output.flush()).map_err(failed)
    }

    /// Writes it into a file.
    pub(crate) fn create(&self, path: &Path) -> Result<(), ArchiveError> {
        let file = File::create(path).map_err(|error| ArchiveError { path: path.to_owned(), error })?;
        self.write(path, io::BufWriter::new(file))
    }
}

impl Content {
    fn read(&self) -> Result<(ModeFileType, Vec<u8>), ArchiveError> {
        Ok(match self {
            Self::Script(bytes) => (ModeFileType::Regular, bytes.clone()),
            Self::Link(target) => (ModeFileType::Symlink, target.as_bytes().to_vec()),
            Self::File(path) => {
                let bytes = std::fs::read(path).map_err(|error| ArchiveError { path: path.clone(), error })?;
                (ModeFileType::Regular, bytes)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let archive = Archive::default().script("a/b/c", "text").folder("a/d").link("a/e", "b/c");
        let mut bytes = Vec::new();
        archive.write(Path::new("archive"), &mut bytes).unwrap();
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["a", "a/b", "a/d", "a/b/c", "a/e"]);
    }
}

//! The output of a trace: the console, a file, a FIFO or a device.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use vector14_hook::OptionsError;

/// The output that the user asked for.
pub(super) enum Target {
    /// Standard error.
    Console,
    /// A regular file, which is created or truncated, or an existing FIFO or device.
    File(PathBuf),
}

/// An output that is ready for writing.
pub(super) enum Output {
    Console,
    File(File),
    /// A FIFO. Opening it waits for a reader, so the writing thread opens it.
    Fifo(PathBuf),
}

impl Target {
    /// Reports errors that [`Target::open`] would report, as far as possible without creating or truncating a file.
    pub(super) fn check(&self) -> Result<(), OptionsError> {
        match self {
            Self::Console => Ok(()),
            Self::File(path) if is_fifo(path) => Ok(()),
            Self::File(path) if path.exists() => {
                OpenOptions::new().append(true).open(path).map(drop).map_err(|error| cannot_open(path, &error))
            }
            Self::File(path) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let made = fs::read_dir(folder.unwrap_or(Path::new(".")));
                made.map(drop).map_err(|error| cannot_open(path, &error))
            }
        }
    }

    /// Creates or truncates the file.
    pub(super) fn open(&self) -> Result<Output, OptionsError> {
        match self {
            Self::Console => Ok(Output::Console),
            Self::File(path) if is_fifo(path) => Ok(Output::Fifo(path.clone())),
            Self::File(path) => File::create(path).map(Output::File).map_err(|error| cannot_open(path, &error)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console => f.write_str("the console (stderr)"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Output {
    /// Whether the output keeps what is written: a pipe or a device does not.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Console | Self::Fifo(_) => false,
            Self::File(file) => file.metadata().is_ok_and(|metadata| metadata.is_file()),
        }
    }

    /// Opens the writer, which makes one system call per write. For a FIFO, waits until there is a reader.
    pub(super) fn into_writer(self) -> io::Result<Box<dyn Write>> {
        Ok(match self {
            Self::Console => Box::new(io::stderr()),
            Self::File(file) => Box::new(file),
            Self::Fifo(path) => Box::new(OpenOptions::new().write(true).open(path)?),
        })
    }
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

fn cannot_open(path: &Path, error: &io::Error) -> OptionsError {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "make the folder first, or name another file",
        io::ErrorKind::PermissionDenied => "make it writable, or name another file",
        io::ErrorKind::IsADirectory => "name a file in it",
        _ => "name another file",
    };
    OptionsError::new("file", format!("file = {}: can't be written: {error}; {advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_made_is_named_with_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        fs::write(&file, "").unwrap();
        for (path, cause, advice) in [
            (folder.path().to_owned(), "Is a directory", "a file in it"),
            (folder.path().join("none/trace"), "No such file", "make the folder"),
            (file.join("trace"), "Not a directory", "another file"),
        ] {
            let target = Target::File(path.clone());
            for error in [target.check().unwrap_err(), target.open().err().unwrap()] {
                assert_eq!(error.key.as_deref(), Some("file"));
                let message = error.to_string();
                let parts = [path.to_str().unwrap(), cause, advice];
                assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            }
        }
    }

    #[test]
    fn a_check_leaves_files_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "precious").unwrap();
        for path in [&old, &new] {
            Target::File(path.clone()).check().unwrap();
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "precious");
        assert!(!new.exists());
        Target::File(old.clone()).open().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "");
    }
}

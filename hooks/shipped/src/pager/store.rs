//! The store that holds pages which are not in memory.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vector14_hook::PAGE_SIZE;

/// The contents of a page.
pub(super) type Contents = [u8; 4096];

/// Reads and writes the pages of a range, numbered from 0. Called from several vCPUs at once.
pub(super) trait Store: Send + Sync {
    /// Makes sure that no one else uses the store. A pager that replaces another waits here until the other has written
    /// everything back; reading earlier would return stale contents.
    fn acquire(&self) -> io::Result<()>;

    /// Reads a page into `contents`.
    fn read(&self, page: u64, contents: &mut Contents) -> io::Result<()>;

    /// Writes a page.
    fn write(&self, page: u64, contents: &Contents) -> io::Result<()>;

    /// Syncs what was written to stable storage.
    fn sync(&self) -> io::Result<()>;

    /// The name of the store in messages.
    fn name(&self) -> String;
}

/// A file; page 0 begins at its first byte. As with `mmap`, the part of the last page beyond the end of the file reads
/// as zero and is not stored.
pub(super) struct FileStore {
    file: File,
    /// The path; `None` for a nameless file that only this process sees.
    path: Option<PathBuf>,
    /// Number of bytes used. The file was at least this long when it was opened.
    length: u64,
    access: FileAccess,
    /// Whether we hold the file's lock. It is held until the file is closed.
    is_locked: AtomicBool,
}

/// How a file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileAccess {
    /// Read-only; others may read the file too.
    Read,
    /// Read and write; no one else may use the file.
    Write,
}

/// The longest wait for others that use the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// Interval at which the lock is retried.
const STEP: Duration = Duration::from_millis(1);

impl FileStore {
    /// Opens the file at `path` for `pages` pages, without changing it.
    pub(super) fn open(path: &Path, pages: u64, access: FileAccess) -> io::Result<Self> {
        // Check before opening: opening a FIFO would wait for its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = File::options().read(true).write(access == FileAccess::Write).open(path)?;
        let length = file.metadata()?.len();
        if length.div_ceil(PAGE_SIZE) < pages {
            return Err(io::Error::other(format!(
                "its {length} bytes are too few for the {pages} pages from `start` to `end`"
            )));
        }
        let length = length.min(pages.saturating_mul(PAGE_SIZE));
        Ok(Self { file, path: Some(path.to_owned()), length, access, is_locked: AtomicBool::new(false) })
    }

    /// Creates a nameless file of `pages` zero pages.
    pub(super) fn zeroes(pages: u64) -> io::Result<Self> {
        let (file, length) = (tempfile::tempfile()?, pages.saturating_mul(PAGE_SIZE));
        file.set_len(length)?;
        Ok(Self { file, path: None, length, access: FileAccess::Write, is_locked: AtomicBool::new(true) })
    }

    /// The file offset of a page, and the number of its bytes in the file.
    fn part(&self, page: u64) -> (u64, usize) {
        let offset = page.saturating_mul(PAGE_SIZE);
        let bytes = self.length.saturating_sub(offset).min(PAGE_SIZE);
        (offset, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn shrunk(&self) -> io::Error {
        io::Error::new(io::ErrorKind::UnexpectedEof, format!("it has been truncated below {} bytes", self.length))
    }
}

impl Store for FileStore {
    fn acquire(&self) -> io::Result<()> {
        let start = Instant::now();
        while !self.is_locked.load(Ordering::Acquire) {
            let locked = match self.access {
                FileAccess::Read => self.file.try_lock_shared(),
                FileAccess::Write => self.file.try_lock(),
            };
            match locked {
                Ok(()) => self.is_locked.store(true, Ordering::Release),
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => std::thread::sleep(STEP),
                Err(TryLockError::WouldBlock) => return Err(io::Error::other("it is in use by another pager")),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&self, page: u64, contents: &mut Contents) -> io::Result<()> {
        let (offset, bytes) = self.part(page);
        let (there, beyond) = contents.split_at_mut(bytes);
        beyond.fill(0);
        self.file.read_exact_at(there, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.shrunk(),
            _ => error,
        })
    }

    fn write(&self, page: u64, contents: &Contents) -> io::Result<()> {
        let (offset, bytes) = self.part(page);
        // Do not extend a file that was truncated.
        if self.file.metadata()?.len() < offset + bytes as u64 {
            return Err(self.shrunk());
        }
        self.file.write_all_at(&contents[..bytes], offset)
    }

    fn sync(&self) -> io::Result<()> {
        // A nameless file ends with this process anyway.
        self.path.as_ref().map_or(Ok(()), |_| self.file.sync_data())
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or("zeroes".to_owned(), |path| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(length: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        fs::write(&path, vec![7; length]).unwrap();
        (folder, path)
    }

    #[test]
    fn the_rest_of_the_last_page_is_zero_and_is_not_written() {
        let (_folder, path) = file(4096 + 10);
        let store = FileStore::open(&path, 2, FileAccess::Write).unwrap();
        let mut contents = [1; 4096];
        store.read(1, &mut contents).unwrap();
        assert_eq!((&contents[..10], &contents[10..]), (&[7; 10][..], &[0; 4086][..]));
        store.write(1, &[9; 4096]).unwrap();
        store.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), [vec![7; 4096], vec![9; 10]].concat());
    }

    #[test]
    fn what_lies_behind_the_range_is_left_alone() {
        let (_folder, path) = file(3 * 4096);
        FileStore::open(&path, 1, FileAccess::Write).unwrap().write(0, &[9; 4096]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [vec![9; 4096], vec![7; 2 * 4096]].concat());
    }

    #[test]
    fn a_file_that_shrinks_is_neither_read_as_zero_nor_made_longer() {
        let (_folder, path) = file(2 * 4096);
        let store = FileStore::open(&path, 2, FileAccess::Write).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4096 + 5).unwrap();
        for error in [store.read(1, &mut [0; 4096]).unwrap_err(), store.write(1, &[9; 4096]).unwrap_err()] {
            assert!(error.to_string().contains("truncated") && error.to_string().contains("8192"), "{error}");
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 4096 + 5);
    }

    #[test]
    fn what_is_no_file_or_too_short_is_refused() {
        let (folder, path) = file(4096);
        for (path, words) in [(folder.path(), "not a regular file"), (&path, "4096 bytes are too few for the 2 pages")]
        {
            let error = FileStore::open(path, 2, FileAccess::Write).err().unwrap();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn one_at_a_time_writes_and_the_next_waits_for_it() {
        let (_folder, path) = file(4096);
        let open = |access| FileStore::open(&path, 1, access).unwrap();
        let (first, second) = (open(FileAccess::Write), open(FileAccess::Write));
        first.acquire().unwrap();
        first.acquire().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                second.acquire().unwrap();
                assert!(done.load(Ordering::SeqCst), "it has not waited");
            });
            std::thread::sleep(10 * STEP);
            done.store(true, Ordering::SeqCst);
            drop(first);
        });
        let error = open(FileAccess::Read).acquire().unwrap_err();
        assert!(error.to_string().contains("another pager"), "{error}");
    }

    #[test]
    fn several_read_at_a_time() {
        let (_folder, path) = file(4096);
        let readers = [1, 2].map(|_| FileStore::open(&path, 1, FileAccess::Read).unwrap());
        readers.iter().for_each(|reader| reader.acquire().unwrap());
    }

    #[test]
    fn pages_without_a_file_are_zero_until_they_are_written() {
        let store = FileStore::zeroes(1 << 30).unwrap();
        let mut contents = [1; 4096];
        store.read((1 << 30) - 1, &mut contents).unwrap();
        assert_eq!(contents, [0; 4096]);
        store.write(12345, &[5; 4096]).unwrap();
        store.read(12345, &mut contents).unwrap();
        assert_eq!(contents, [5; 4096]);
    }
}

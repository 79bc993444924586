//! The cache folder: the packages that were downloaded, and what was taken out of them.
//!
//! `packages.json` records which package of which version stands for each of the lab's names, with the checksum that
//! apt's signed lists give. Every start compares the files with it, and mends what is missing or damaged. Where
//! nothing is, no package tool runs and no network is needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::apt::{self, AptError, Package};
use crate::wanted::{Item, LabKernel, Presence, WANTED, Wanted};

/// Why the cache can't be filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The cache folder can't be used.
    #[error("{}: {error}; VECTOR14_LAB names another cache folder", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A download that is not what apt's lists promise.
    #[error("{}: its sha256 is {found}, not {expected}: run `apt-get update` and try again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A package without a file that it used to have.
    #[error("{} {} has no file {path}: this version of Debian's package is not known to the lab", .package.name, .package.version)]
    NotThere {
        /// The package.
        package: Package,
        /// The end of the file's path.
        path: &'static str,
    },
}

/// The cache folder, this process's own until it ends.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    record: BTreeMap<String, Package>,
    _lock: File,
}

impl Cache {
    /// Opens the folder that `VECTOR14_LAB` names. Waits while another lab runs in it.
    pub(crate) fn open(workspace: &Path) -> Result<Self, CacheError> {
        let root = std::env::var_os("VECTOR14_LAB").map_or_else(|| workspace.join("target/lab"), PathBuf::from);
        let failed = |error| CacheError::Io { path: root.clone(), error };
        fs::create_dir_all(&root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let lock = lock(&root.join("lock"))?;
        for folder in ["packages", "unpacked"] {
            fs::create_dir_all(root.join(folder)).map_err(|error| CacheError::Io { path: root.join(folder), error })?;
        }
        // A record that can't be read counts as none: the packages are looked up anew.
        let record = fs::read(record_file(&root)).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Ok(Self { root, record: record.unwrap_or_default(), _lock: lock })
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file that was taken out of a package; none if this version does not have it.
    pub(crate) fn file(&self, key: &str, name: &str) -> Option<PathBuf> {
        let wanted = WANTED.iter().find(|wanted| wanted.key == key)?;
        let file = self.unpacked(wanted, self.record.get(key)?).join(name);
        file.exists().then_some(file)
    }

    /// The package that stands for this name. Its version is its name for a kernel.
    pub(crate) fn package(&self, key: &str) -> Option<&Package> {
        self.record.get(key)
    }

    /// The packages that modules for a kernel are built from, in the kernel's own version; downloads what is missing.
    pub(crate) fn sources(&mut self, kernel: &LabKernel) -> Result<Vec<PathBuf>, CacheError> {
        let Some(image) = self.record.get(kernel.key).cloned() else { return Ok(Vec::new()) };
        let abi = image.name.trim_start_matches("linux-image-").trim_end_matches("-amd64-unsigned");
        let names = [kernel.source].into_iter().chain(kernel.headers).map(|name| name.replace("{}", abi));
        let mut packages = Vec::new();
        for name in names {
            let known = self.record.get(&name).filter(|package| package.version == image.version).cloned();
            let package = known.map_or_else(|| apt::exact(&name, &image.version), Ok)?;
            self.record.insert(name, package.clone());
            packages.push(package);
        }
        self.save()?;
        self.download_missing()?;
        Ok(packages.iter().filter_map(|package| self.deb(package)).collect())
    }

    /// Forgets which packages there are.
    pub(crate) fn forget(&mut self) -> Result<(), CacheError> {
        self.record.clear();
        self.save()
    }

    /// Downloads and unpacks what is missing or damaged.
    pub(crate) fn fill(&mut self) -> Result<(), CacheError> {
        let known = |wanted: &&Wanted| !self.record.contains_key(wanted.key);
        let unknown: Vec<&Wanted> = WANTED.iter().filter(known).collect();
        if !unknown.is_empty() {
            eprintln!("lab: looking up {} Debian packages", unknown.len());
            apt::refresh()?;
        }
        for wanted in unknown {
            self.record.insert(wanted.key.to_owned(), apt::newest(wanted.package)?);
        }
        self.save()?;
        self.download_missing()?;
        for wanted in WANTED {
            self.unpack(wanted)?;
        }
        Ok(())
    }

    fn download_missing(&self) -> Result<(), CacheError> {
        let missing = |package: &&Package| !matches!(self.check(package), Ok(Check::Right));
        let missing: Vec<&Package> = self.record.values().filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        eprintln!("lab: downloading {} Debian packages", missing.len());
        let folder = self.root.join("packages");
        for package in &missing {
            // What is there is damaged; apt would take it for the real one.
            if let Some(file) = self.deb(package) {
                fs::remove_file(&file).map_err(|error| CacheError::Io { path: file, error })?;
            }
        }
        apt::download(&missing, &folder)?;
        for package in missing {
            if let Check::Wrong { path, found } = self.check(package)? {
                return Err(CacheError::Damaged { path, expected: package.sha256.clone(), found });
            }
        }
        Ok(())
    }

    /// Compares a package's file with its checksum.
    fn check(&self, package: &Package) -> Result<Check, CacheError> {
        let Some(path) = self.deb(package) else {
            let found = "that of no file".to_owned();
            return Ok(Check::Wrong { path: self.root.join("packages").join(&package.name), found });
        };
        let found = sha256(&path).map_err(|error| CacheError::Io { path: path.clone(), error })?;
        Ok(if found == package.sha256 { Check::Right } else { Check::Wrong { path, found } })
    }

    /// The file that `apt-get download` makes of a package: `name_version_architecture.deb`.
    fn deb(&self, package: &Package) -> Option<PathBuf> {
        let version = package.version.replace(':', "%3a");
        let file = |architecture| self.root.join(format!("packages/{}_{version}_{architecture}.deb", package.name));
        ["amd64", "all"].into_iter().map(file).find(|file| file.exists())
    }

    /// Takes the files that are wanted out of a package, if that has not been done.
    fn unpack(&self, wanted: &Wanted) -> Result<(), CacheError> {
        let Some(package) = self.record.get(wanted.key) else { return Ok(()) };
        let destination = self.unpacked(wanted, package);
        let (false, Some(deb)) = (destination.exists(), self.deb(package)) else { return Ok(()) };
        eprintln!("lab: unpacking {} {}", package.name, package.version);
        let failed = |error| CacheError::Io { path: destination.clone(), error };
        // In the same file system as the destination, which then appears all at once.
        let scratch = TempDir::new_in(&self.root).map_err(failed)?;
        let (tree, chosen) = (scratch.path().join("tree"), scratch.path().join("chosen"));
        apt::unpack(&deb, &tree)?;
        fs::create_dir(&chosen).map_err(failed)?;
        let files = files_below(&tree).map_err(failed)?;
        for item in wanted.items {
            take(item, &files, &chosen, package)?;
        }
        fs::rename(&chosen, &destination).map_err(failed)
    }

    /// Where what is wanted of a package is. It is another folder when something else is wanted.
    fn unpacked(&self, wanted: &Wanted, package: &Package) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(&package.sha256);
        wanted.items.iter().for_each(|item| hasher.update(item.path));
        let sum = hexadecimal(&hasher.finalize());
        self.root.join(format!("unpacked/{}-{}", package.name, sum.get(..12).unwrap_or(&sum)))
    }

    fn save(&self) -> Result<(), CacheError> {
        let path = record_file(&self.root);
        let json = serde_json::to_vec_pretty(&self.record).map_err(io::Error::from);
        json.and_then(|json| fs::write(&path, json)).map_err(|error| CacheError::Io { path, error })
    }
}

enum Check {
    Right,
    Wrong { path: PathBuf, found: String },
}

/// Copies one file of an unpacked package, decompressed, under its name without a version.
fn take(item: &Item, files: &[PathBuf], chosen: &Path, package: &Package) -> Result<(), CacheError> {
    let Some(file) = files.iter().find(|file| is_item(file, item.path)) else {
        return match item.presence {
            Presence::Possible => Ok(()),
            Presence::Certain => Err(CacheError::NotThere { package: package.clone(), path: item.path }),
        };
    };
    let compressed = file.extension().is_some_and(|extension| extension == "xz");
    let name = item.path.rsplit('/').next().unwrap_or(item.path);
    let copy = chosen.join(if compressed { format!("{name}.xz") } else { name.to_owned() });
    fs::copy(file, &copy).map_err(|error| CacheError::Io { path: file.clone(), error })?;
    if compressed { Ok(apt::decompress(&copy)?) } else { Ok(()) }
}

/// Whether this is the file: `vmlinuz-6.1.0-56-amd64` is `vmlinuz`, and `kvm.ko.xz` is `kvm.ko`.
fn is_item(file: &Path, item: &str) -> bool {
    let item = Path::new(item);
    let (Some(folder), Some(name), Some(wanted)) = (item.parent(), file.file_name(), item.file_name()) else {
        return false;
    };
    let (name, wanted) = (name.to_string_lossy(), wanted.to_string_lossy());
    let same =
        name.strip_prefix(&*wanted).is_some_and(|rest| rest.is_empty() || rest == ".xz" || rest.starts_with('-'));
    same && file.parent().is_some_and(|parent| parent.ends_with(folder))
}

/// All files below a folder, with links to files.
pub(crate) fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn record_file(root: &Path) -> PathBuf {
    root.join("packages.json")
}

fn lock(path: &Path) -> Result<File, CacheError> {
    let failed = |error| CacheError::Io { path: path.to_owned(), error };
    let file = File::create(path).map_err(failed)?;
    if file.try_lock().is_err() {
        eprintln!("lab: waiting for another run in {} to end", path.display());
        file.lock().map_err(failed)?;
    }
    Ok(file)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hexadecimal(&hasher.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_the_end_of_its_path() {
        let is = |file: &str, item| is_item(Path::new(file), item);
        assert!(is("/x/boot/vmlinuz-6.1.0-56-amd64", "boot/vmlinuz"));
        assert!(is("/x/kernel/arch/x86/kvm/kvm.ko.xz", "arch/x86/kvm/kvm.ko"));
        assert!(is("/x/usr/bin/bash", "bin/bash"));
        assert!(!is("/x/usr/share/bash", "bin/bash"));
        assert!(!is("/x/kernel/arch/x86/kvm/kvm-amd.ko", "arch/x86/kvm/kvm.ko"));
        assert!(!is("/x/bin/bashbug", "bin/bash"));
    }
}

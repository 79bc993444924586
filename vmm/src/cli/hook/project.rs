//! Creates a cargo project for a hook, ready to build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::name;

/// The SDK of the checkout that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hooks/sdk");

const MANIFEST: &str = include_str!("template/Cargo.toml.in");
const SOURCE: &str = include_str!("template/lib.rs.in");
const CONFIG: &str = include_str!("template/config.toml.in");
const IGNORED: &str = "/target\n";

/// Why a project can't be created.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(in crate::cli) enum ProjectError {
    /// Cargo would refuse the name.
    #[error("a hook can't be called `{name}`: {objection}")]
    #[diagnostic(help("choose a name such as `mine` or `count-writes`"))]
    Name {
        /// The name that was chosen.
        name: String,
        /// Why cargo would refuse it.
        objection: String,
    },
    /// The folder exists already.
    #[error("{} exists already", .folder.display())]
    #[diagnostic(help("choose another name, or remove it first"))]
    Exists {
        /// The folder that was to be created.
        folder: PathBuf,
    },
    /// There is no SDK at the path.
    #[error("there is no SDK for hooks in {}", .sdk.display())]
    #[diagnostic(help("name the folder hooks/sdk of a checkout of vector14: --sdk PATH"))]
    NoSdk {
        /// Where the SDK was looked for.
        sdk: PathBuf,
    },
    /// A file or folder of the project can't be written.
    #[error("{}: {error}", .path.display())]
    Write {
        /// Path of the file or folder.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
}

/// A project to be created.
pub(super) struct Project {
    folder: PathBuf,
    name: String,
    sdk: PathBuf,
}

impl Project {
    /// A project in `folder`, built with the SDK in `sdk`, or with that of this program's own checkout.
    pub(super) fn new(folder: &Path, sdk: Option<&Path>) -> Result<Self, ProjectError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(objection) = name::objection(&name) {
            return Err(ProjectError::Name { name, objection });
        }
        // A dangling symlink also counts as existing.
        if folder.symlink_metadata().is_ok() {
            return Err(ProjectError::Exists { folder: folder.to_owned() });
        }
        let sdk = sdk.unwrap_or(Path::new(SDK));
        let no_sdk = || ProjectError::NoSdk { sdk: sdk.to_owned() };
        let is_sdk = fs::read_to_string(sdk.join("Cargo.toml")).is_ok_and(|text| text.contains("\"vector14-hook\""));
        let sdk = Some(sdk).filter(|_| is_sdk).and_then(|sdk| sdk.canonicalize().ok()).ok_or_else(no_sdk)?;
        Ok(Self { folder: folder.to_owned(), name, sdk })
    }

    /// Writes the project's files.
    pub(super) fn write(&self) -> Result<(), ProjectError> {
        let failed = |path: &Path, error| ProjectError::Write { path: path.to_owned(), error };
        let source = self.folder.join("src");
        fs::create_dir_all(&source).map_err(|error| failed(&source, error))?;
        let files = [
            ("Cargo.toml", MANIFEST),
            ("src/lib.rs", SOURCE),
            (&format!("{}.toml", self.name), CONFIG),
            (".gitignore", IGNORED),
        ];
        for (file, template) in files {
            let path = self.folder.join(file);
            fs::write(&path, self.fill(template)).map_err(|error| failed(&path, error))?;
        }
        self.lock()
    }

    /// Locks the project to the crate versions that vector14 was built with: they are on this machine already.
    fn lock(&self) -> Result<(), ProjectError> {
        let (versions, lock) = (self.sdk.join("../../Cargo.lock"), self.folder.join("Cargo.lock"));
        match fs::read(&versions) {
            Ok(content) => fs::write(&lock, content).map_err(|error| ProjectError::Write { path: lock, error }),
            // Cargo then chooses the versions.
            Err(_) => Ok(()),
        }
    }

    fn fill(&self, template: &str) -> String {
        let sdk = toml::Value::String(self.sdk.to_string_lossy().into_owned()).to_string();
        template.replace("{name}", &self.name).replace("{library}", &self.library()).replace("{sdk}", &sdk)
    }

    fn library(&self) -> String {
        format!("lib{}.so", self.name.replace('-', "_"))
    }

    /// What to tell the user to do next.
    pub(super) fn next_steps(&self) -> String {
        let (folder, name) = (self.folder.display(), &self.name);
        format!(
            "{folder}: a hook, in src/lib.rs, and a config that runs it, {name}.toml\n\
             next:\n    cd {folder}\n    cargo build\n    vector14 run --watch {name}.toml\n"
        )
    }
}

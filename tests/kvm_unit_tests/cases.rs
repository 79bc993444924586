//! The cases in a folder of kvm-unit-tests: those in its `unittests.cfg`, and flats that it does not name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How a flat is run.
#[derive(Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub flat: PathBuf,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub arguments: String,
}

/// QEMU's default, which the kernels expect.
const MEMORY_MIB: u64 = 128;
/// The most that a VM of vector14 has.
const VCPUS_MAX: u32 = 8;

/// The cases in a folder. The configuration gives the number of CPUs, the size of memory and the arguments; the CPU
/// model is the host's.
pub fn read(folder: &Path) -> Vec<Case> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.flatten().map(|entry| entry.path());
    let mut flats: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "flat")).collect();
    flats.sort();
    assert!(!flats.is_empty(), "{}: no *.flat in it", folder.display());
    let config = std::fs::read_to_string(folder.join("unittests.cfg")).unwrap_or_default();
    let mut cases: Vec<_> = sections(&config).filter_map(|section| section.case(folder)).collect();
    cases.retain(|case| flats.contains(&case.flat));
    flats.retain(|flat| cases.iter().all(|case| case.flat != *flat));
    cases.extend(flats.into_iter().map(|flat| {
        let name = flat.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Case { name, flat, vcpus: 1, memory_mib: MEMORY_MIB, arguments: String::new() }
    }));
    cases
}

/// A test in `unittests.cfg`: its name, and its parameters.
struct Section<'a> {
    name: &'a str,
    parameters: BTreeMap<&'a str, &'a str>,
}

fn sections(config: &str) -> impl Iterator<Item = Section<'_>> {
    let mut found: Vec<Section<'_>> = Vec::new();
    for line in config.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            found.push(Section { name, parameters: BTreeMap::new() });
        } else if let (Some(section), Some((key, value))) = (found.last_mut(), line.split_once('=')) {
            let value = value.trim().trim_matches(['\'', '"']);
            section.parameters.insert(key.trim(), value);
        }
    }
    found.into_iter()
}

impl Section<'_> {
    /// `None` for a test without a file.
    fn case(&self, folder: &Path) -> Option<Case> {
        let get = |key| self.parameters.get(key).copied();
        let qemu = get("qemu_params").or(get("extra_params")).unwrap_or_default();
        let mut words = qemu.split_whitespace().skip_while(|word| *word != "-m").skip(1);
        Some(Case {
            name: self.name.to_owned(),
            flat: folder.join(get("file")?),
            vcpus: get("smp").and_then(|smp| smp.parse().ok()).unwrap_or(1).clamp(1, VCPUS_MAX),
            memory_mib: words.next().and_then(mib).unwrap_or(MEMORY_MIB),
            arguments: get("test_args").unwrap_or_default().to_owned(),
        })
    }
}

/// A size as QEMU's `-m` takes it, in MiB: the number is in MiB, or in GiB if G follows it.
fn mib(size: &str) -> Option<u64> {
    match size.strip_suffix(['g', 'G']) {
        Some(gib) => gib.parse::<u64>().ok()?.checked_mul(1024),
        None => size.trim_end_matches(['m', 'M']).parse().ok(),
    }
}

/// Tests [`read`].
pub fn of_a_folder() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("a.flat", "");
    file("b.flat", "");
    file("a.elf", "");
    file(
        "unittests.cfg",
        "# a comment\n[a1]\nfile = a.flat\nsmp = 2\ntest_args = 'x y=z'\nqemu_params = -cpu max -m 4g\n\
         [a2]\nfile = a.flat\nsmp = $MAX_SMP\nextra_params = -m 256\n[missing]\nfile = c.flat\n",
    );
    let case = |name: &str, flat: &str, vcpus, memory_mib, arguments: &str| Case {
        name: name.to_owned(),
        flat: folder.path().join(flat),
        vcpus,
        memory_mib,
        arguments: arguments.to_owned(),
    };
    let expected = [
        case("a1", "a.flat", 2, 4096, "x y=z"),
        case("a2", "a.flat", 1, 256, ""),
        case("b", "b.flat", 1, MEMORY_MIB, ""),
    ];
    assert_eq!(read(folder.path()), expected);
}

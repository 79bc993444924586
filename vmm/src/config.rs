//! temp
#![allow(missing_docs)]
use std::path::PathBuf;
use std::time::Duration;
use vector14_hook::Va;
#[derive(Clone, Debug)]
pub struct Config {
    pub vm: VmConfig,
    pub boot: BootConfig,
    pub intercept: InterceptConfig,
}
#[derive(Clone, Debug)]
pub struct VmConfig {
    pub memory: u64,
    pub vcpus: u32,
    pub timeout: Option<Duration>,
}
#[derive(Clone, Debug)]
pub struct BootConfig {
    pub kernel: Kernel,
    pub cmdline: String,
}
#[derive(Clone, Debug)]
pub enum Kernel {
    Tiny,
    Path(PathBuf),
}
#[derive(Clone, Debug)]
pub struct InterceptConfig {
    pub engine: EngineChoice,
    pub stub: Option<Va>,
}
#[derive(Clone, Debug, Copy)]
pub enum EngineChoice {
    Auto,
    Gate,
    Off,
}

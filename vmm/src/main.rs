//! temp
use vector14::{config::*, vm::*};
use vector14_hook::*;
struct H(Verdict);
impl Hook for H {
    fn on_fault(&self, f: &Fault, _g: &mut dyn Guest) -> Result {
        if f.sequence < 3 {
            eprintln!("{f:x?}");
        }
        Ok(self.0.clone())
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let config = Config {
        vm: VmConfig { memory: 64 << 20, vcpus: 1, timeout: Some(std::time::Duration::from_secs(10)) },
        boot: BootConfig { kernel: Kernel::Path(a[1].clone().into()), cmdline: a[3].clone() },
        intercept: InterceptConfig {
            engine: if a[2] == "off" { EngineChoice::Off } else { EngineChoice::Gate },
            stub: None,
        },
    };
    let v = match a[2].as_str() {
        "skip" => Verdict::Skip,
        "resolve" => Verdict::Resolve,
        _ => Verdict::Pass,
    };
    let vm =
        Vm::new(&config, vec![("h".into(), Box::new(H(v)))], Surroundings::unattended(Box::new(std::io::stdout())))
            .unwrap();
    let s = vm.run().unwrap();
    println!("{}", serde_json::to_string_pretty(&s).unwrap());
}

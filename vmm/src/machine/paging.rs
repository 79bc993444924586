//! The paging mode that a vCPU is in.

use kvm_bindings::kvm_sregs;
use vector14_hook::paging::Paging;
use vector14_hook::{Cr3, GuestError, PAGE_SIZE, SystemRegisters, Va};

use super::memory::Memory;

/// The paging state that these registers select.
pub(crate) fn in_force(sregs: &kvm_sregs) -> Paging {
    let registers = SystemRegisters { cr0: sregs.cr0, cr4: sregs.cr4, efer: sregs.efer, ..SystemRegisters::default() };
    Paging::in_force(Cr3(sregs.cr3), &registers)
}

/// Reads virtual memory page by page. Shared by hooks and engines.
///
/// # Errors
/// The same as [`Guest::read`](vector14_hook::Guest::read).
pub(crate) fn read_virtual(memory: &Memory, paging: &Paging, address: Va, buffer: &mut [u8]) -> Result<(), GuestError> {
    let mut done = 0;
    while done < buffer.len() {
        let (at, length) = chunk(address, done, buffer.len());
        let physical = paging.translate(at, |slot| memory.load(slot))?.address;
        memory.read(physical, &mut buffer[done..done + length])?;
        done += length;
    }
    Ok(())
}

/// Reads up to `buffer.len()` bytes of virtual memory word by word, for code and descriptors on the path of a fault.
/// Returns how many bytes could be read before the first page that is not there.
pub(crate) fn read_words(memory: &Memory, paging: &Paging, address: Va, buffer: &mut [u8]) -> usize {
    let mut page = None;
    let mut done = 0;
    while done < buffer.len() {
        let at = address.offset(done as u64);
        if done == 0 || at.page_offset() == 0 {
            page = paging.translate(at.page(), |slot| memory.load(slot)).ok();
        }
        let skip = usize::from(at.0.to_le_bytes()[0] & 7);
        let word = page.and_then(|page| memory.load(page.address.offset(at.page_offset() & !7)).ok());
        let Some(word) = word else { break };
        let length = (8 - skip).min(buffer.len() - done);
        buffer[done..done + length].copy_from_slice(&word.to_le_bytes()[skip..skip + length]);
        done += length;
    }
    done
}

/// Writes virtual memory page by page. Shared by hooks and engines.
///
/// # Errors
/// The same as [`Guest::write`](vector14_hook::Guest::write).
pub(crate) fn write_virtual(memory: &Memory, paging: &Paging, address: Va, data: &[u8]) -> Result<(), GuestError> {
    let mut done = 0;
    while done < data.len() {
        let (at, length) = chunk(address, done, data.len());
        let physical = paging.translate(at, |slot| memory.load(slot))?.address;
        memory.write(physical, &data[done..done + length])?;
        done += length;
    }
    Ok(())
}

/// Finds the part of an access of `total` bytes at `address` that begins at offset `done` and lies in one page: its
/// address and length.
fn chunk(address: Va, done: usize, total: usize) -> (Va, usize) {
    let at = address.offset(done as u64);
    let in_page = usize::try_from(PAGE_SIZE - at.page_offset()).unwrap_or(usize::MAX);
    (at, in_page.min(total - done))
}

#[cfg(test)]
mod tests {
    use vector14_hook::paging::Mode;

    use super::*;

    #[test]
    fn registers_say_which_mode_it_is() {
        let paging = |cr0, cr4, efer| in_force(&kvm_sregs { cr0, cr4, efer, ..kvm_sregs::default() });
        const PG: u64 = 1 << 31;
        assert_eq!(paging(1, 0x20, 0x800).mode, Mode::Off);
        assert_eq!(paging(PG, 0x10, 0x800).mode, Mode::Bits32 { large_pages: true });
        assert!(!paging(PG, 0x10, 0x800).no_execute);
        assert_eq!((paging(PG, 0x20, 0x800).mode, paging(PG, 0x20, 0x800).no_execute), (Mode::Pae, true));
        assert_eq!(paging(PG, 0x20, 0x500).mode, Mode::Long { levels: 4 });
        assert_eq!(paging(PG, 0x1020, 0x500).mode, Mode::Long { levels: 5 });
    }
}

//! Access rights, and the flags of page-table entries.

bitflags::bitflags! {
    /// Access rights of a mapping: those that every level of the walk grants.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// R/W set at every level.
        const WRITE = 1 << 0;
        /// U/S set at every level.
        const USER = 1 << 1;
        /// XD clear at every level (or EFER.NXE off).
        const EXECUTE = 1 << 2;
    }
}

bitflags::bitflags! {
    /// The flags of a page-table entry (SDM vol. 3A, tables 4-15 to 4-20).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EntryFlags: u64 {
        /// P: the entry is present.
        const PRESENT = 1 << 0;
        /// R/W: writes are allowed.
        const WRITE = 1 << 1;
        /// U/S: user mode is allowed.
        const USER = 1 << 2;
        /// PWT: write-through caching.
        const WRITE_THROUGH = 1 << 3;
        /// PCD: caching is disabled.
        const CACHE_DISABLE = 1 << 4;
        /// A: the CPU has used the entry.
        const ACCESSED = 1 << 5;
        /// D: the CPU has written to the page. Leaves only.
        const DIRTY = 1 << 6;
        /// PS: a leaf above level 1. In a leaf of level 1 this bit is PAT.
        const LARGE = 1 << 7;
        /// G: the translation survives a write to CR3. Leaves only.
        const GLOBAL = 1 << 8;
        /// XD: instruction fetches are forbidden if EFER.NXE is set; otherwise the bit is reserved.
        const NO_EXECUTE = 1 << 63;
    }
}

impl EntryFlags {
    /// The access rights that an entry with these flags grants.
    #[must_use]
    #[inline]
    pub fn access(self) -> Access {
        let mut access = Access::empty();
        access.set(Access::WRITE, self.contains(Self::WRITE));
        access.set(Access::USER, self.contains(Self::USER));
        access.set(Access::EXECUTE, !self.contains(Self::NO_EXECUTE));
        access
    }
}

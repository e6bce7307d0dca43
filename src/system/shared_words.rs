//! Numbers that related processes share without a lock: see `mmap(2)`. Any of them may write any number at any time,
//! so nothing may hang on what they say.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// `N` numbers, in memory of their own. Children that are forked share them.
#[derive(Debug)]
pub struct SharedWords<const N: usize>(NonNull<AtomicU64>);

impl<const N: usize> SharedWords<N> {
    const LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(N * size_of::<AtomicU64>());

    /// All of them 0.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let mapping = unsafe { mmap_anonymous(None, Self::LENGTH, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self(mapping.cast()))
    }

    /// The numbers.
    #[must_use]
    pub fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has room for N of them, is page-aligned and lives as long as `self`; zeros are valid ones,
        // and so is whatever another process writes.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), N) }
    }
}

impl<const N: usize> Drop for SharedWords<N> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`. Other processes keep theirs.
        unsafe { munmap(self.0.cast(), Self::LENGTH.get()) }.unwrap_or_default();
    }
}

//! Memory that a child does not get: see `MADV_WIPEONFORK` in `madvise(2)`.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const LENGTH: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// One page, of this process alone: in a child that is forked it is all zeros.
#[derive(Debug)]
pub struct SecretPage(NonNull<c_void>);

impl SecretPage {
    /// A page of zeros.
    ///
    /// # Errors
    /// ENOMEM; EINVAL from a kernel before 4.14.
    pub fn new() -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let page = Self(unsafe { mmap_anonymous(None, LENGTH, protection, MapFlags::MAP_PRIVATE) }?);
        // SAFETY: the mapping is ours, private and anonymous, as this advice demands; it changes only what a child sees.
        unsafe { madvise(page.0, LENGTH.get(), MmapAdvise::MADV_WIPEONFORK) }?;
        Ok(page)
    }
}

impl Deref for SecretPage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has that many bytes, all initialised, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), LENGTH.get()) }
    }
}

impl DerefMut for SecretPage {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `self` is borrowed mutably, so nobody else looks.
        unsafe { slice::from_raw_parts_mut(self.0.as_ptr().cast(), LENGTH.get()) }
    }
}

impl Drop for SecretPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`.
        unsafe { munmap(self.0, LENGTH.get()) }.unwrap_or_default();
    }
}
